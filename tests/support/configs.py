"""Configurations as train.py composes them."""

from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from scdiff_data.starting import open_settings
from support.cases import ROOT

CONFIGS = ROOT / "configs"


def compose(run_dir: Path, *overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = hydra.compose("train", open_settings(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        config.run_dir = str(run_dir)
        del config.hydra
    GlobalHydra.instance().clear()
    return config
