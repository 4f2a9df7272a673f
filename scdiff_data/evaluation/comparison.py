"""Generated cells beside held-out ones: drawn, compared, and written into a run's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from anndata.io import write_elem

from scdiff_data.base import describe_number, write_aside, write_hdf5
from scdiff_data.evaluation.baselines import score_baselines
from scdiff_data.evaluation.figure import ReportContent, plot_report
from scdiff_data.evaluation.judgements import find_label, measure_calibration, score_effects
from scdiff_data.evaluation.panels import Samples
from scdiff_data.loading import CellBatch
from scdiff_data.measuring import (
    MIN_CELLS,
    N_HALVINGS,
    Counts,
    TrainingCells,
    compare_cells,
    compare_replicates,
    draw_mean_profiles,
    guess_types,
    rescale_scores,
    shuffle_genes,
    take_medians,
)
from scdiff_data.telling import Progress
from scdiff_data.tokenizers import BinTokens
from scdiff_data.training import ScRNADataModule

if TYPE_CHECKING:
    from anndata import AnnData

N_COMPARED = 20_000
"""The most cells of a split that baselines are made from."""

N_TYPED = 4_000
"""The most real cells that effects are measured on."""


class Generator(Protocol):
    """What a report takes of a model."""

    def generate(self, n_cells: int, *, steps: int) -> "AnnData":
        """New cells."""
        ...


@dataclass(frozen=True)
class Comparison:
    """Generated cells, and how they compare with real ones.

    Parameters
    ----------
    generated
        The cells.
    samples
        As many of them, of held-out ones and of other real ones, for the picture.
    split
        The split that the held-out ones are of.
    held_out
        What was held out: `cells`, `2 experiments`, …
    scores
        The `baselines`' likelihoods; `compare_cells` of the `generated` cells, of `real` ones (the
        median of halvings), of two cheats, `genes_shuffled` and `mean_profile`, and, where
        experiments are held out, of the other split's (`other_held_out`); the generated cells'
        `scale`; their `effects`, and the `calibration` of predictions, where there are some.
    type_names, type_shares
        Types, and the share of each among `generated`, `real` and `other` cells; or empty.
    """

    generated: "AnnData"
    samples: Samples
    split: str
    held_out: str
    scores: dict[str, Any]
    type_names: Sequence[str]
    type_shares: Mapping[str, Sequence[float]]

    def write(self, run_dir: Path) -> None:
        """Write `generated.h5ad`."""
        with write_aside(run_dir / "generated.h5ad") as aside, write_hdf5(aside) as file:
            write_elem(file, "/", self.generated)

    def draw(
        self,
        run_dir: Path,
        *,
        curves: Mapping[str, Sequence[float]],
        losses: Mapping[str, float],
        baselines: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        """Draw `report.png`; arguments are those of `ReportContent`, and what is known here."""
        content = ReportContent(
            samples=self.samples,
            split=self.split,
            held_out=self.held_out,
            scores=self.scores,
            type_names=self.type_names,
            type_shares=self.type_shares,
            curves=curves,
            losses=losses,
            baselines={self.split: self.scores["baselines"], **(baselines or {})},
        )
        plot_report(run_dir / "report.png", content)


@dataclass(frozen=True)
class HeldOut:
    """The real cells of a comparison.

    Parameters
    ----------
    pool
        Counts of cells of one population, an even number; the first half is what samples stand
        beside.
    others
        Counts of cells of other held-out experiments; None where cells are held out, not these.
    text
        What was held out: `cells`, `2 experiments`, …
    typed
        Cells of that population with their labels, for effects.
    """

    pool: Counts
    others: Counts | None
    text: str
    typed: Sequence[CellBatch]

    @property
    def n_cells(self) -> int:
        """Cells of each sample that is compared."""
        return len(self.pool) // 2

    @classmethod
    def take(cls, datamodule: ScRNADataModule, split: str, n_cells: int) -> "HeldOut":
        """Those of a split: at most `n_cells` to compare, and as many to halve them with.

        Where single cells are held out, both splits are of one population, and the other one's
        help out. Where experiments are, they are another population, as training's are.
        """
        own, other = _open_splits(datamodule, split)
        first, typed = own[: 2 * n_cells], [own[:N_TYPED]]
        pool_rg, other_rg = np.asarray(first.expression), np.asarray(other[:n_cells].expression)
        recipe, n_own = getattr(datamodule, "recipe", None), len(pool_rg)
        by = "cell" if recipe is None else recipe.split.by
        if by == "cell" and other is not own:
            pool_rg = np.concatenate([pool_rg, other_rg])[: 2 * n_cells]
            typed.append(other[: max(N_TYPED - len(own), 0)])
        n = min(n_cells, len(pool_rg) // 2, n_own)
        text = "cells" if by == "cell" else f"values of {by}"
        if by == "experiment":
            n_experiments = len(np.unique(np.asarray(first.metadata["experiment_id"])))
            text = describe_number(n_experiments, "experiment")
        others_rg = None if by == "cell" or len(other_rg) < n else other_rg[:n]
        return cls(pool_rg[: 2 * n], others_rg, text, typed)


def compare_with_split(
    model: Generator, datamodule: ScRNADataModule, *, split: str, n_cells: int, steps: int
) -> Comparison | None:
    """Generate cells and compare them with a split's; None if it has too few cells."""
    real = HeldOut.take(datamodule, split, n_cells)
    if (n := real.n_cells) < MIN_CELLS:
        return None
    train = datamodule.train_dataset[:N_COMPARED]
    train_tg = np.asarray(train.expression)
    generated = model.generate(n_cells, steps=steps)
    counts_cg = generated.X.toarray()
    counts = {
        "generated": counts_cg[:n],
        "genes_shuffled": shuffle_genes(train_tg)[:n],
        "mean_profile": draw_mean_profiles(train_tg)[:n],
    }
    if real.others is not None:
        counts["other_held_out"] = real.others
    scores: dict[str, Any] = {"baselines": score_baselines_of(datamodule, split)}
    trained, replicates = TrainingCells.fit(train_tg), []
    with Progress("compare", "samples", len(counts) + N_HALVINGS) as progress:
        for name, sample_cg in counts.items():
            scores[name] = compare_cells(sample_cg, real.pool[:n], trained)
            progress.add()
        for one in compare_replicates(real.pool, trained):
            replicates.append(one)
            progress.add()
    scores["real"] = take_medians(replicates)
    scores["scale"] = rescale_scores(scores["generated"], replicates, scores)
    scores |= score_effects(generated, real.typed, train, datamodule.categories)
    scores |= measure_calibration(model, datamodule, split, n_cells=n_cells)
    shown = Samples(counts["generated"], real.pool[:n], real.pool[n:])
    names, shares = _share_types(vars(shown), train, datamodule.categories)
    return Comparison(generated, shown, split, real.text, scores, names, shares)


def evaluate_model(
    model: Generator,
    datamodule: ScRNADataModule,
    run_dir: Path,
    *,
    split: str,
    n_cells: int,
    steps: int,
    losses: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Generate cells and compare them with a split's; write `generated.h5ad` and `report.png`.

    Parameters
    ----------
    model, datamodule
        What generates, and the data that it was trained on.
    run_dir
        Where the files go.
    split
        `val` or `test`.
    n_cells, steps
        Cells to generate, and the most real ones to compare with; sampling steps.
    losses
        What `Trainer.test` or `validate` gave, for the picture.

    Returns
    -------
    dict
        See `Comparison.scores`.

    Raises
    ------
    ValueError
        If the split has fewer than 20 cells, or `n_cells` is below 10.
    """
    comparison = compare_with_split(model, datamodule, split=split, n_cells=n_cells, steps=steps)
    if comparison is None:
        raise ValueError(
            f"the {split} split has too few cells to compare with: hold out at least "
            f"{2 * MIN_CELLS}, and generate at least {MIN_CELLS} (n_cells)"
        )
    comparison.write(run_dir)
    comparison.draw(run_dir, curves={}, losses=losses or {})
    return comparison.scores


def score_baselines_of(datamodule: ScRNADataModule, split: str) -> dict[str, float]:
    """What a split's counts cost without a model, see `score_baselines`."""
    held_out, _ = _open_splits(datamodule, split)
    with Progress("baselines"):
        return score_baselines(
            datamodule.train_dataset[:N_COMPARED],
            held_out[:N_COMPARED],
            tokenizer=cast("BinTokens", datamodule.tokenizer),
            labels=list(datamodule.categories),
        )


def _open_splits(datamodule: ScRNADataModule, split: str) -> tuple[Any, Any]:
    """The cells of a split, and of the other one that is held out."""
    datasets = [datamodule.val_dataset, datamodule.test_dataset]
    return tuple(datasets if split == "val" else datasets[::-1])  # type: ignore[return-value]


def _share_types(
    counts: Mapping[str, Any], train: CellBatch, categories: Mapping[str, Sequence[str]]
) -> tuple[Sequence[str], Mapping[str, Sequence[float]]]:
    """The share of each value of the first label of texts, guessed for all cells by one rule."""
    name = find_label(categories)
    if name is None or not (np.asarray(train.metadata[name]) >= 0).any():
        return (), {}
    names, codes_t = categories[name], np.asarray(train.metadata[name])
    shares = {}
    for kind, counts_cg in counts.items():
        codes_c = guess_types(counts_cg, np.asarray(train.expression), codes_t)
        shares[kind] = (np.bincount(codes_c, minlength=len(names)) / len(codes_c)).tolist()
    return names, shares
