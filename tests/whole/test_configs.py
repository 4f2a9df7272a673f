"""The tie between YAML and classes, which no import checker sees: every file of every group."""

import re
from inspect import signature
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import MissingMandatoryValue, OmegaConf

from scdiff_data import CellSampler, ScRNADataModule, create_dataloader, create_hvg_dataloader
from scdiff_data.diffusion import Denoiser, MaskedDiffusion
from scdiff_data.diffusion.denoiser import count_flops
from support.configs import CONFIGS, compose

SIZES = ("d_model", "n_layers", "n_heads", "patch_size")


def group(name: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / name).glob("*.yaml"))


def test_the_default_job_composes_and_instantiates(tmp_path: Path) -> None:
    config = compose(tmp_path)
    assert isinstance(instantiate(config.data), ScRNADataModule)
    assert isinstance(instantiate(config.model), LightningModule)
    assert isinstance(instantiate(config.trainer), Trainer)


REQUIRED = {"h5ad": ["data.source.path=somewhere"]}
WITH_SOURCE = [name for name in group("data") if name not in ("default", "prepared")]


@pytest.mark.parametrize("name", WITH_SOURCE)
def test_every_data_file_makes_a_datamodule(tmp_path: Path, name: str) -> None:
    config = compose(tmp_path, f"data={name}", *REQUIRED.get(name, []))
    datamodule = instantiate(config.data)
    assert isinstance(datamodule, ScRNADataModule)
    assert not Path(config.data.data_dir).is_absolute()


def test_prepared_data_are_asked_for_by_their_directory_alone(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    prepared = compose(tmp_path, "data=prepared", f"data.data_dir={pbmc_dir}", "data.batch_size=8")
    opened = instantiate(prepared.data)
    assert isinstance(opened, ScRNADataModule)
    assert (opened.n_genes, opened.batch_size, opened.tokenizer.n_tokens) == (64, 8, 16)
    with pytest.raises(MissingMandatoryValue, match=r"data\.data_dir"):
        instantiate(compose(tmp_path, "data=prepared").data)


def test_a_shuffle_is_the_same_from_the_configs_and_from_every_constructor(tmp_path: Path) -> None:
    data = compose(tmp_path).data
    for make in (ScRNADataModule, CellSampler, create_hvg_dataloader, create_dataloader):
        parameters = signature(make).parameters
        for name in ("shuffle", "window_size", "run_size"):
            # Creators shuffle training cells alone: None is what the split says.
            assert parameters[name].default in (data[name], None), (make, name)


@pytest.mark.parametrize("name", WITH_SOURCE)
def test_another_seed_of_a_run_leaves_the_cells_and_their_splits_as_they_are(
    tmp_path: Path, name: str
) -> None:
    first, second, drawn = (
        instantiate(compose(tmp_path, f"data={name}", *REQUIRED.get(name, []), *seeds).data)
        for seeds in (["seed=42"], ["seed=43"], ["seed=43", "data.seed=7"])
    )
    assert first.recipe == second.recipe != drawn.recipe
    assert first.hparams["shuffle_seed"] != second.hparams["shuffle_seed"]


@pytest.mark.parametrize("name", group("data/tokenizer"))
def test_every_tokenizer_file_makes_a_tokenizer(tmp_path: Path, name: str) -> None:
    config = compose(tmp_path, f"data/tokenizer={name}")
    assert instantiate(config.data).tokenizer.n_tokens >= 1


def test_a_pretrained_models_settings_are_those_of_the_class(tmp_path: Path) -> None:
    """It needs a checkpoint, which a test of train.py gives it."""
    config = compose(tmp_path, "model=pretrained", "model.checkpoint_path=last.ckpt").model
    known = {*signature(MaskedDiffusion).parameters}
    known |= {*signature(MaskedDiffusion.load_from_checkpoint).parameters}
    assert {str(key) for key in config if not str(key).startswith("_")} <= known


@pytest.mark.parametrize("name", [name for name in group("model") if name != "pretrained"])
def test_every_model_file_makes_a_module(tmp_path: Path, name: str) -> None:
    assert isinstance(instantiate(compose(tmp_path, f"model={name}").model), LightningModule)


@pytest.mark.parametrize("name", [name for name in group("model") if name != "pretrained"])
def test_a_model_file_says_its_size(tmp_path: Path, name: str) -> None:
    size = {k: compose(tmp_path, f"model={name}").model[k] for k in SIZES}
    with torch.device("meta"):
        network = Denoiser(2_000, n_tokens=16, **size)
    said = re.search(
        r"2,000 genes x 16 tokens: ([\d.]+) M parameters, ([\d.]+) GFLOPs a cell",
        (CONFIGS / "model" / f"{name}.yaml").read_text(),
    )
    assert said is not None
    n_parameters = sum(weight.numel() for weight in network.parameters())
    assert float(said[1]) == pytest.approx(n_parameters / 1e6, rel=0.01, abs=0.05)
    assert float(said[2]) == pytest.approx(count_flops(network, 2_000) / 1e9, rel=0.01, abs=0.0005)


def test_the_evaluation_composes(tmp_path: Path) -> None:
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = hydra.compose("evaluate", ["ckpt_path=x", f"run_dir={tmp_path}"])
    GlobalHydra.instance().clear()
    assert isinstance(instantiate(config.data), ScRNADataModule)


@pytest.mark.parametrize("name", group("callbacks"))
def test_every_callbacks_file_makes_callbacks(tmp_path: Path, name: str) -> None:
    callbacks = instantiate(compose(tmp_path, f"callbacks={name}").callbacks)
    assert all(isinstance(callback, Callback) for callback in callbacks.values())


@pytest.mark.parametrize("name", group("logger"))
def test_every_logger_file_makes_a_logger(tmp_path: Path, name: str) -> None:
    pytest.importorskip({"csv": "lightning"}.get(name, name))
    assert isinstance(instantiate(compose(tmp_path, f"logger={name}").logger), Logger)


def test_the_trainer_takes_all_that_lightnings_does_without_a_plus(tmp_path: Path) -> None:
    typed = compose(tmp_path).trainer
    known = signature(Trainer).parameters
    assert {str(name) for name in typed} - {"_target_"} == {*known}
    lines = (CONFIGS / "trainer" / "default.yaml").read_text().splitlines()
    ours = {line.partition(":")[0] for line in lines if "# ours" in line}
    ours |= {"logger", "callbacks"}
    assert {n for n in known if known[n].default != typed[n]} == ours


def test_a_large_model_brings_what_fits_its_size(tmp_path: Path) -> None:
    small, base = (
        compose(tmp_path, f"model={name}", "trainer=ddp", "data=scbasecount")
        for name in ("small", "base")
    )
    assert base.model.learning_rate < small.model.learning_rate
    assert base.callbacks.ema.decay > small.callbacks.ema.decay > 0.99
    assert (small.data.batch_size, base.data.batch_size) == (256, 256)
    assert base.model.labels == []  # and what it does not name is as in `tiny`
    own = compose(tmp_path, "model=base", "data.batch_size=8", "trainer.max_epochs=1")
    assert (own.data.batch_size, own.trainer.max_epochs) == (8, 1)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_key_has_a_comment(path: Path) -> None:
    without, is_told = [], True
    for line in path.read_text().splitlines():
        key = re.match(r" *([a-z]\w*):", line)
        is_head = bool(key) and line.rstrip().endswith(":")  # what is below it says what it is
        if key and key[1] != "defaults" and not (is_head or "# " in line or is_told):
            without.append(line)
        is_told = line.lstrip().startswith("#")
    assert without == []
    assert path.read_text().startswith("# ")


ON_CPU = {  # what a machine without GPUs can stand in for
    "gpu": ["trainer.accelerator=cpu"],
    "ddp": ["trainer.accelerator=cpu", "trainer.devices=2"],
}


@pytest.mark.parametrize("name", group("trainer"))
def test_every_trainer_file_makes_a_trainer(tmp_path: Path, name: str) -> None:
    config = compose(tmp_path, f"trainer={name}", *ON_CPU.get(name, []))
    trainer = instantiate(config.trainer)
    assert isinstance(trainer, Trainer)
    assert len(trainer.callbacks) >= len(config.callbacks)


@pytest.mark.parametrize("name", group("experiment"))
def test_every_experiment_composes_and_holds_only_differences(tmp_path: Path, name: str) -> None:
    config = compose(tmp_path, f"experiment={name}")
    instantiate(config.data)
    changes = OmegaConf.load(CONFIGS / "experiment" / f"{name}.yaml")
    data = next(item["override /data"] for item in changes.defaults if "override /data" in item)
    without = compose(tmp_path, f"data={data}")
    for section in ("data", "trainer", "model"):
        for key, value in changes.get(section, {}).items():
            assert without[section].get(key) != value, f"{section}.{key} is {value} already"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.n_hvg=128", "n_hvg"),
        ("data=pbcm", "pbcm"),
        ("trainer.max_epoch=3", "max_epoch"),
        ("data/tokenizer=log", "log"),
    ],
)
def test_a_wrong_key_is_an_error_that_names_it(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(HydraException, match=message):
        compose(tmp_path, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.cell_count=-3", r"cell_count must be a whole number of at least 1, got -3"),
        ("data.n_hvgs=many", r"n_hvgs must be a whole number of at least 1, got 'many'"),
        ("data.split.val=1.5", r"split\.val and split\.test are fractions.*1\.5"),
        ("data.batch_size=0", r"batch_size must be at least 1.*0"),
        ("data.shuffle=blocks", r"shuffle must be window or global, got 'blocks'"),
        ("data.shuffle=false", r"shuffle must be window or global, got False"),
        ("data.window_size=0", r"window_size must be a whole number of at least 1, got 0"),
        ("data.window_size=100", r"run_size=256 exceeds window_size=100.*lower run_size"),
        ("data.tokenizer.ratio=0.5", r"ratio must be above 1, got 0\.5"),
        ("+data.split.bye=cell", r"split has no setting \['bye'\]"),
    ],
)
def test_a_wrong_value_is_an_error_before_any_work(
    tmp_path: Path, override: str, message: str
) -> None:
    config: Any = compose(tmp_path, override)
    with pytest.raises(hydra.errors.InstantiationException, match=message):
        instantiate(config.data)
    assert not list(tmp_path.iterdir())
