"""How good generated cells are, and the report that ends a run.

Every figure compares a sample of cells with held-out real ones, and means little alone: beside it
stands *real against real*, the same figure for training cells, which a perfect model would reach.

Shapes: c generated (or other) cells, r real held-out cells, g genes.
"""

import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance
from sklearn.metrics.pairwise import euclidean_distances

from scdiff_data.datamodule import ScRNADataModule
from scdiff_data.diffusion.module import MaskedDiffusion
from scdiff_data.files import write_aside, write_json
from scdiff_data.plots import plot_report
from scdiff_data.tokenizers import TokenBatch

_log = logging.getLogger(__name__)


def compare_cells(
    counts_cg: NDArray[np.integer[Any]], real_rg: NDArray[np.integer[Any]]
) -> dict[str, float]:
    """Compare a sample's counts with held-out real cells' over the same genes.

    Returns
    -------
    dict
        `gene_mean_ratio`, `gene_variance_ratio`: median over genes; ideal 1.
        `gene_mean_correlation`: Pearson's, of the genes' log(1 + mean); ideal 1.
        `zero_fraction_difference`: ideal 0.
        `library_cv_ratio`: of the coefficients of variation of cells' total counts; ideal 1.
        `detected_genes_ratio`: of the mean numbers of genes that a cell shows; ideal 1.
        `gene_correlation_agreement`: Pearson's, between both samples' gene-gene correlations.
        `wasserstein_per_gene`: mean 1-Wasserstein distance of a gene; ideal 0.
        `mmd2`: squared maximum mean discrepancy, unbiased (so noise can make it negative), Gaussian
        kernel of the real cells' median squared distance; ideal 0.
        The last three are of log(1 + count).

    Raises
    ------
    ValueError
        If a sample has fewer than 2 cells.
    """
    if min(len(counts_cg), len(real_rg)) < 2:
        raise ValueError(
            f"both samples need at least 2 cells, got {len(counts_cg)} and {len(real_rg)}: hold "
            "out or generate more"
        )
    varies_g = real_rg.var(0) > 0
    (mean_g, variance_g), (real_mean_g, real_variance_g) = (
        (counts[:, varies_g].mean(0), counts[:, varies_g].var(0)) for counts in (counts_cg, real_rg)
    )
    log_cg, log_rg = np.log1p(counts_cg), np.log1p(real_rg)
    scores = {
        "gene_mean_ratio": np.median(mean_g / real_mean_g),
        "gene_variance_ratio": np.median(variance_g / real_variance_g),
        "gene_mean_correlation": np.corrcoef(np.log1p(mean_g), np.log1p(real_mean_g))[0, 1],
        "zero_fraction_difference": (counts_cg == 0).mean() - (real_rg == 0).mean(),
        "library_cv_ratio": _library_cv(counts_cg) / _library_cv(real_rg),
        "detected_genes_ratio": (counts_cg > 0).mean() / (real_rg > 0).mean(),
        "gene_correlation_agreement": _correlation_agreement(log_cg, log_rg),
        "wasserstein_per_gene": np.mean(
            [wasserstein_distance(a, b) for a, b in zip(log_cg.T, log_rg.T, strict=True)]
        ),
        "mmd2": _mmd2(log_cg, log_rg),
    }
    return {name: float(score) for name, score in scores.items()}


def _library_cv(counts_cg: NDArray[np.integer[Any]]) -> float:
    library_c = counts_cg.sum(1)
    return float(library_c.std() / library_c.mean())


def _correlation_agreement(
    log_cg: NDArray[np.floating[Any]], log_rg: NDArray[np.floating[Any]]
) -> float:
    shared_g = (log_cg.std(0) > 0) & (log_rg.std(0) > 0)
    pairs = np.triu_indices(shared_g.sum(), k=1)
    both = [np.asarray(np.corrcoef(log[:, shared_g].T))[pairs] for log in (log_cg, log_rg)]
    return float(np.corrcoef(both)[0, 1])


def _mmd2(log_cg: NDArray[np.floating[Any]], log_rg: NDArray[np.floating[Any]]) -> float:
    """E k(x, x') + E k(y, y') - 2 E k(x, y), leaving out each cell's kernel with itself."""
    n, m = len(log_cg), len(log_rg)
    squares_rr = euclidean_distances(log_rg, squared=True)
    scale = np.median(squares_rr[~np.eye(m, dtype=bool)])
    k_rr = np.exp(-squares_rr / scale)
    k_cc = np.exp(-euclidean_distances(log_cg, squared=True) / scale)
    k_cr = np.exp(-euclidean_distances(log_cg, log_rg, squared=True) / scale)
    within = (k_cc.sum() - n) / (n * (n - 1)) + (k_rr.sum() - m) / (m * (m - 1))
    return float(within - 2 * k_cr.mean())


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
    n_steps
        Sampling steps.
    """

    def __init__(self, run_dir: str | Path, *, n_cells: int = 256, n_steps: int = 32) -> None:
        self._run_dir = Path(run_dir)
        self._n_cells = n_cells
        self._n_steps = n_steps
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
        assert isinstance(pl_module, MaskedDiffusion)
        datamodule: ScRNADataModule = trainer.datamodule  # type: ignore[attr-defined]
        pl_module.to(trainer.strategy.root_device)  # where Lightning has just taken it from
        generated = pl_module.generate(self._n_cells, n_steps=self._n_steps)
        pl_module.cpu()
        generated_cg = generated.X.toarray()
        real_rg = np.asarray(datamodule.val_dataset[: self._n_cells].expression)
        second_rg = np.asarray(datamodule.train_dataset[: self._n_cells].expression)
        last = {name: curve[-1] for name, curve in self._curves.items()}
        scores = {
            "generated": compare_cells(generated_cg, real_rg),
            "real": compare_cells(second_rg, real_rg),
        }
        with write_aside(self._run_dir / "generated.h5ad") as aside:
            generated.write_h5ad(aside)
        picture = self._run_dir / "report.png"
        plot_report(
            picture, curves=self._curves, generated_counts=generated_cg, real_counts=real_rg
        )
        self._metrics = last | scores
        write_json(self._run_dir / "metrics.json", self._metrics)
        _log.info(
            "validation loss %.4f ± %.4f nats a gene; per-gene marginals %.4f",
            *(last[name] for name in ("val/loss", "val/loss_se", "val/marginal")),
        )

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the test split's losses to `metrics.json`, if this run made one."""
        del pl_module
        if trainer.is_global_zero and self._metrics:
            tested = {k: float(v) for k, v in trainer.callback_metrics.items() if k[:5] == "test/"}
            write_json(self._run_dir / "metrics.json", self._metrics | tested)

    def state_dict(self) -> dict[str, Any]:
        """Return the curves, and the mean that is being taken."""
        mean = {"loss_sum": self._loss_sum, "n_batches": self._n_batches}
        return {"curves": self._curves, **mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a checkpoint's curves."""
        self._curves = state_dict["curves"]
        self._loss_sum, self._n_batches = state_dict["loss_sum"], state_dict["n_batches"]
