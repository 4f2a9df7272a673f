"""How good a model is, and the report that ends a run.

Likelihoods stand beside three baselines, and generated cells beside real ones and two cheats, all
on cells that the model was not trained on.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT

from scdiff_data.base import write_json
from scdiff_data.evaluation.comparison import (
    Comparison,
    Generator,
    compare_with_split,
    score_baselines_of,
)
from scdiff_data.loading import TokenBatch
from scdiff_data.measuring import MIN_CELLS
from scdiff_data.training import ScRNADataModule

_log = logging.getLogger(__name__)

SAMPLES = ("generated", "real", "other_held_out", "genes_shuffled", "mean_profile")
"""Samples that are compared with held-out cells, in the order of the columns."""


class RunReport(Callback):
    """End a run with `report.png`, `generated.h5ad` and `metrics.json` in its folder.

    Cells are generated with the weights that `fit` leaves in the model, and compared with the
    validation cells. Loss curves go on through a resume.

    Parameters
    ----------
    run_dir
        Folder to write to; made if missing.
    n_cells
        Cells to generate, and the most real ones to compare with.
    steps
        Sampling steps.
    """

    def __init__(self, run_dir: str | Path, *, n_cells: int = 256, steps: int = 32) -> None:
        self._run_dir = Path(run_dir)
        self._n_cells = n_cells
        self._steps = steps
        names = ["epoch", "step", "train/loss", "val/loss", "val/loss_se", "val/marginal"]
        self._curves: dict[str, list[float]] = {name: [] for name in [*names, "val/count_nll"]}
        self._loss_sum = torch.zeros(())  # of the batches since the last validation
        self._n_batches = 0
        self._metrics: dict[str, Any] = {}
        self._comparison: Comparison | None = None  # kept, for the test's scores come later

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: TokenBatch,
        batch_idx: int,
    ) -> None:
        """Add to the mean training loss, on the device: reading it would wait for the step."""
        del trainer, pl_module, batch, batch_idx
        loss = cast("dict[str, torch.Tensor]", outputs)["loss"].detach()
        self._loss_sum = self._loss_sum.to(loss.device) + loss
        self._n_batches += 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a point to the curves: the losses, and the mean training loss since the last one."""
        del pl_module
        if trainer.state.fn != TrainerFn.FITTING or not self._n_batches:
            return  # a sanity check, or no training
        point = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "train/loss": float(self._loss_sum) / self._n_batches,
        }
        for name, curve in self._curves.items():
            value = point[name] if name in point else float(trainer.callback_metrics[name])
            curve.append(value)
        self._loss_sum, self._n_batches = torch.zeros(()), 0

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Generate, compare and write, on the first rank."""
        if not trainer.is_global_zero:
            return
        if not self._curves["step"]:
            _log.warning("no report: no validation ran; split.val must leave validation cells")
            return
        last = {name: curve[-1] for name, curve in self._curves.items()}
        self._metrics = dict(last)
        self._comparison = self._compare(trainer, pl_module)
        if self._comparison is not None:
            self._metrics |= self._comparison.scores
            self._comparison.write(self._run_dir)
            self._draw({})
        write_json(self._run_dir / "metrics.json", self._metrics)
        _log.info(
            "validation loss %.4f ± %.4f nats a gene; per-gene marginals %.4f",
            *(last[name] for name in ("val/loss", "val/loss_se", "val/marginal")),
        )

    def _compare(self, trainer: Trainer, model: LightningModule) -> Comparison | None:
        datamodule: ScRNADataModule = trainer.datamodule  # type: ignore[attr-defined]
        model.to(trainer.strategy.root_device)  # where Lightning has just taken it from
        generator = cast("Generator", model)
        comparison = compare_with_split(
            generator, datamodule, split="val", n_cells=self._n_cells, steps=self._steps
        )
        model.cpu()
        if comparison is None:
            _log.warning(
                "no cells generated: %d validation cells of n_cells=%d are too few to compare "
                "with, hold out at least %d",
                len(datamodule.val_dataset),
                self._n_cells,
                2 * MIN_CELLS,
            )
        return comparison

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the test split's losses and baselines to `metrics.json` and the picture."""
        del pl_module
        if trainer.is_global_zero and self._metrics:
            tested: dict[str, Any] = {
                k: float(v) for k, v in trainer.callback_metrics.items() if k[:5] == "test/"
            }
            if "test/count_nll" in tested:
                datamodule: ScRNADataModule = trainer.datamodule  # type: ignore[attr-defined]
                tested["test_baselines"] = score_baselines_of(datamodule, "test")
            self._draw(tested)
            write_json(self._run_dir / "metrics.json", self._metrics | tested)

    def _draw(self, tested: Mapping[str, Any]) -> None:
        if self._comparison is not None:
            known = {**self._metrics, **tested}
            self._comparison.draw(
                self._run_dir,
                curves=self._curves,
                losses={name: value for name, value in known.items() if "/" in name},
                baselines={"test": known["test_baselines"]} if "test_baselines" in known else {},
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the curves, and the mean that is being taken."""
        mean = {"loss_sum": self._loss_sum, "n_batches": self._n_batches}
        return {"curves": self._curves, **mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a checkpoint's curves."""
        self._curves = state_dict["curves"]
        self._loss_sum, self._n_batches = state_dict["loss_sum"], state_dict["n_batches"]


def describe_test(run_dir: str | Path) -> str | None:
    """What `metrics.json` says of the test cells, as a table; None if nothing was tested."""
    path = Path(run_dir) / "metrics.json"
    scores = json.loads(path.read_text()) if path.exists() else {}
    if "test_baselines" not in scores:
        return None
    error = f"± {scores['test/loss_se']:.3f}"
    rows = [("model", scores["test/loss"], error, scores["test/count_nll"])]
    for name, count_nll in scores["test_baselines"].items():
        rows.append((name, scores["test/marginal"] if name == "marginal" else None, "", count_nll))
    lines = [f"{'test cells, nats a gene':26}{'tokens':>9}{'counts':>17}"]
    for name, loss, error, count_nll in rows:
        tokens = "" if loss is None else f"{loss:.3f}"
        lines.append(f"  {name:24}{tokens:>9} {error:8}{count_nll:8.3f}")
    return "\n".join(lines)


def describe_scores(count_nll: float, scores: Mapping[str, Any]) -> str:
    """What `metrics.json` holds, as tables; a `-` has no place on the scale."""
    nlls = {"model": count_nll, **scores["baselines"]}
    lines = ["counts, nats a gene", *(f"  {name:24}{nll:9.4f}" for name, nll in nlls.items())]
    samples = {name: scores[name] for name in SAMPLES if name in scores}
    lines.append(
        f"{'held-out cells beside':28}"
        + "".join(f"{name:>16}" for name in samples)
        + f"{'scale':>8}"
    )
    for score in samples["generated"]:
        values = "".join(f"{sample[score]:16.4f}" for sample in samples.values())
        lines.append(f"  {score:26}{values}{_describe_place(scores['scale'].get(score)):>8}")
    lines.append("scale: 0 genes shuffled, of single genes' figures the mean profile; 1 real")
    if "effects" in scores:
        lines += _describe_effects(scores["effects"])
    if "calibration" in scores:
        lines.append("calibration error, of hidden genes' probabilities")
        for name, curve in scores["calibration"].items():
            each = curve["ece_of"]
            most = f"; {len(each)} experiments, the worst {max(each.values()):.4f}"
            lines.append(f"  {name:24}{curve['ece']:9.4f}" + most * (len(each) > 1))
    return "\n".join(lines)


def _describe_effects(effects: Mapping[str, Any]) -> list[str]:
    how = "" if effects["is_given"] else ", of types guessed by the nearest training cells"
    lines = [f"effects between {effects['label']}, {len(effects['pairs'])} pairs{how}"]
    for name in ("slope", "correlation"):
        low, middle, high = effects[f"{name}_ceiling"]
        place = _describe_place(effects["scale"][name])
        lines.append(
            f"  {name:24}{effects[name]:9.4f}  real {middle:.4f} ({low:.4f} to {high:.4f})"
            f"  scale {place}"
        )
    return lines


def _describe_place(place: float | None) -> str:
    return "-" if place is None else f"{place:.2f}"
