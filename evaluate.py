"""Score a checkpoint: `python evaluate.py ckpt_path=… data=…`.

Writes `metrics.json`, `report.png` and `generated.h5ad` to the run's folder, and prints the tables.
"""

from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from scdiff_data.starting import explain_mistakes, load_frameworks, run_main

# What takes seconds to load is imported later: a wrong setting is told at once.


@hydra.main(config_path="configs", config_name="evaluate", version_base="1.3")
def main(config: DictConfig) -> None:
    """Score a checkpoint on a split; Hydra calls this with `configs/evaluate.yaml`."""
    with explain_mistakes():
        load_frameworks()
        from scdiff_data.callbacks import exit_when_told

        with exit_when_told():
            evaluate(config)


def evaluate(config: DictConfig) -> None:
    """Score, write, print."""
    from lightning.pytorch import Trainer

    from scdiff_data import ScRNADataModule
    from scdiff_data.base import write_json
    from scdiff_data.callbacks import TrainingProgress
    from scdiff_data.diffusion import MaskedDiffusion
    from scdiff_data.evaluation import describe_scores, evaluate_model

    datamodule: ScRNADataModule = instantiate(config.data)
    model = MaskedDiffusion.load_from_checkpoint(
        config.ckpt_path, map_location="cpu", weights_only=True
    )
    trainer = Trainer(
        devices=1, logger=False, enable_model_summary=False, callbacks=[TrainingProgress()]
    )
    run = {"test": trainer.test, "val": trainer.validate}[config.split]
    losses = run(model, datamodule=datamodule, verbose=False)[0]
    scores = evaluate_model(
        model,
        datamodule,
        Path(config.run_dir),
        split=config.split,
        n_cells=config.n_cells,
        steps=config.steps,
        losses=losses,
    )
    write_json(Path(config.run_dir) / "metrics.json", dict(losses) | scores)
    print(describe_scores(losses[f"{config.split}/count_nll"], scores))
    print(config.run_dir)


if __name__ == "__main__":
    run_main(main)
