"""Score a checkpoint: `python -m scdiff_data.diffusion.evaluate ckpt_path=… data=…`.

Writes `metrics.json`, `report.png` and `generated.h5ad` to the run's folder, and prints the tables.
"""

from collections.abc import Mapping
from pathlib import Path

import hydra
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from scdiff_data.datamodule import ScRNADataModule
from scdiff_data.diffusion.module import MaskedDiffusion
from scdiff_data.diffusion.report import evaluate_model
from scdiff_data.files import write_json


@hydra.main(
    config_path=str(Path(__file__).parents[2] / "configs"),
    config_name="evaluate",
    version_base="1.3",
)
def main(config: DictConfig) -> None:
    """Score a checkpoint on a split; Hydra calls this with `configs/evaluate.yaml`."""
    datamodule: ScRNADataModule = instantiate(config.data)
    model = MaskedDiffusion.load_from_checkpoint(
        config.ckpt_path, map_location="cpu", weights_only=True
    )
    trainer = Trainer(devices=1, logger=False, enable_progress_bar=False)
    run = {"test": trainer.test, "val": trainer.validate}[config.split]
    losses = run(model, datamodule=datamodule, verbose=False)[0]
    scores = evaluate_model(
        model,
        datamodule,
        Path(config.run_dir),
        split=config.split,
        n_cells=config.n_cells,
        steps=config.steps,
    )
    write_json(Path(config.run_dir) / "metrics.json", dict(losses) | scores)
    print(describe_scores(losses[f"{config.split}/count_nll"], scores))
    print(config.run_dir)


def describe_scores(count_nll: float, scores: Mapping[str, Mapping[str, float]]) -> str:
    """What `metrics.json` holds, as two tables."""
    nlls = {"model": count_nll, **scores["baselines"]}
    lines = ["counts, nats a gene", *(f"  {name:24}{nll:9.4f}" for name, nll in nlls.items())]
    samples = {name: sample for name, sample in scores.items() if name != "baselines"}
    lines.append(f"{'held-out cells beside':28}" + "".join(f"{name:>16}" for name in samples))
    for score in samples["generated"]:
        values = (f"{sample[score]:16.4f}" for sample in samples.values())
        lines.append(f"  {score:26}" + "".join(values))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
