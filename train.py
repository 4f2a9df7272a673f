"""Prepare cells, train a model on them, test it, report: `python train.py [overrides]`.

Everything comes from `configs/`: `python train.py --cfg job` shows what is composed,
`python train.py --help` what there is to choose from.
"""

import logging
import os
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from scdiff_data.starting import explain_mistakes, load_frameworks, name_run, run_main

logger = logging.getLogger(__name__)

# What takes seconds to load is imported later: a wrong setting is told at once.


@hydra.main(config_path="configs", config_name="train", version_base="1.3")
def main(config: DictConfig) -> None:
    """Run one job; Hydra calls this with the composed configuration."""
    with explain_mistakes():
        load_frameworks()
        from scdiff_data.callbacks import exit_when_told

        with exit_when_told():
            run(config)


def run(config: DictConfig) -> None:
    """Prepare, train, test."""
    import torch
    from lightning import LightningModule, Trainer, seed_everything

    from scdiff_data import ScRNADataModule
    from scdiff_data.base import write_aside
    from scdiff_data.callbacks import find_checkpoint
    from scdiff_data.evaluation import describe_test

    # Lightning starts each further rank with this command again: it must find this sweep's folder.
    os.environ["SCDIFF_SWEEP_DIR"] = HydraConfig.get().sweep.dir
    seed_everything(config.seed, workers=True, verbose=False)
    # All settings are checked here, before any work: a wrong one fails now.
    datamodule: ScRNADataModule = instantiate(config.data)
    if config.dry_run:
        print(datamodule.plan())
        return
    if config.prepare_only:
        datamodule.prepare_data()
        if config.data.get("stages") != "download":
            datamodule.setup("fit")
        print(config.data.data_dir)
        return
    model: LightningModule = instantiate(config.model)
    trainer: Trainer = instantiate(config.trainer)
    run_dir = Path(config.run_dir)
    if trainer.is_global_zero:
        with write_aside(run_dir / "config.yaml") as aside:
            aside.write_text(OmegaConf.to_yaml(config, resolve=True))
    # A job that is started again goes on from its own. A checkpoint may come from anywhere: nothing
    # in it is run.
    ckpt_path = find_checkpoint(run_dir) or config.ckpt_path
    if ckpt_path is not None and trainer.is_global_zero:
        logger.info("going on from %s", ckpt_path)
    trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
    trainer.test(model, datamodule=datamodule, verbose=False)
    if trainer.is_global_zero:
        if (table := describe_test(run_dir)) is not None:
            print(table)
        print(run_dir)
    # Lightning leaves gloo's group to the end of Python, where its threads may abort the process.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # In a sweep, a rank that is ahead would meet the first one's old store in the next job.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    name_run()
    run_main(main)
