"""How good a model is, and the report that ends a run.

Likelihoods stand beside three baselines, and generated cells beside real ones and two cheats, all
on cells that the model was not trained on.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from anndata.io import write_elem
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT

from scdiff_data.base import write_aside, write_hdf5, write_json
from scdiff_data.evaluation.baselines import score_baselines
from scdiff_data.evaluation.figure import plot_report
from scdiff_data.evaluation.metrics import (
    MIN_CELLS,
    compare_cells,
    draw_mean_profiles,
    shuffle_genes,
)
from scdiff_data.loading import TokenBatch
from scdiff_data.telling import Progress
from scdiff_data.tokenizers import BinTokens
from scdiff_data.training import ScRNADataModule

if TYPE_CHECKING:
    from anndata import AnnData

_log = logging.getLogger(__name__)


N_COMPARED = 20_000
"""The most cells of a split that baselines are made from."""


class Generator(Protocol):
    """What a report takes of a model."""

    def generate(self, n_cells: int, *, steps: int) -> "AnnData":
        """New cells."""
        ...


def evaluate_model(
    model: Generator,
    datamodule: ScRNADataModule,
    run_dir: Path,
    *,
    split: str,
    n_cells: int,
    steps: int,
    curves: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Generate cells and compare them with a split's; write `generated.h5ad` and `report.png`.

    Returns
    -------
    dict
        The `baselines`' likelihoods, and `compare_cells` of the `generated` cells, of `real` ones
        of another split, and of two cheats, `genes_shuffled` and `mean_profile`.
    """
    other = {"val": datamodule.test_dataset, "test": datamodule.val_dataset}[split]
    held_out = {"val": datamodule.val_dataset, "test": datamodule.test_dataset}[split]
    train = datamodule.train_dataset[:N_COMPARED]
    second = other[:n_cells] if len(other) >= MIN_CELLS else train
    real_cg, train_tg = np.asarray(held_out[:n_cells].expression), np.asarray(train.expression)
    generated = model.generate(n_cells, steps=steps)
    generated_cg = generated.X.toarray()
    samples = {
        "generated": generated_cg,
        "real": np.asarray(second.expression[:n_cells]),
        "genes_shuffled": shuffle_genes(train_tg)[:n_cells],
        "mean_profile": draw_mean_profiles(train_tg)[:n_cells],
    }
    with write_aside(run_dir / "generated.h5ad") as aside, write_hdf5(aside) as file:
        write_elem(file, "/", generated)
    plot_report(
        run_dir / "report.png",
        curves=curves or {},
        generated_counts=generated_cg,
        real_counts=real_cg,
    )
    scores: dict[str, Any] = {"baselines": _score_baselines(datamodule, split)}
    with Progress("compare", "samples", len(samples)) as progress:
        for name, counts_cg in samples.items():
            scores[name] = compare_cells(counts_cg, real_cg, train_tg)
            progress.add()
    return scores


def _score_baselines(datamodule: ScRNADataModule, split: str) -> dict[str, float]:
    """What a split's counts cost without a model, see `score_baselines`."""
    held_out = {"val": datamodule.val_dataset, "test": datamodule.test_dataset}[split]
    with Progress("baselines"):
        return score_baselines(
            datamodule.train_dataset[:N_COMPARED],
            held_out[:N_COMPARED],
            tokenizer=cast("BinTokens", datamodule.tokenizer),
            labels=list(datamodule.categories),
        )


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
        self._metrics = last | self._compare(trainer, pl_module)
        write_json(self._run_dir / "metrics.json", self._metrics)
        _log.info(
            "validation loss %.4f ± %.4f nats a gene; per-gene marginals %.4f",
            *(last[name] for name in ("val/loss", "val/loss_se", "val/marginal")),
        )

    def _compare(self, trainer: Trainer, model: LightningModule) -> dict[str, Any]:
        datamodule: ScRNADataModule = trainer.datamodule  # type: ignore[attr-defined]
        n_cells = min(self._n_cells, len(datamodule.val_dataset))
        if n_cells < MIN_CELLS:
            _log.warning(
                "no cells generated: %d validation cells of n_cells=%d are too few to compare "
                "with, hold out at least %d",
                len(datamodule.val_dataset),
                self._n_cells,
                MIN_CELLS,
            )
            return {}
        model.to(trainer.strategy.root_device)  # where Lightning has just taken it from
        scores = evaluate_model(
            cast("Generator", model),
            datamodule,
            self._run_dir,
            split="val",
            n_cells=self._n_cells,
            steps=self._steps,
            curves=self._curves,
        )
        model.cpu()
        return scores

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the test split's losses to `metrics.json`, if this run made one, and baselines."""
        del pl_module
        if trainer.is_global_zero and self._metrics:
            tested: dict[str, Any] = {
                k: float(v) for k, v in trainer.callback_metrics.items() if k[:5] == "test/"
            }
            if "test/count_nll" in tested:
                datamodule: ScRNADataModule = trainer.datamodule  # type: ignore[attr-defined]
                tested["test_baselines"] = _score_baselines(datamodule, "test")
            write_json(self._run_dir / "metrics.json", self._metrics | tested)

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
