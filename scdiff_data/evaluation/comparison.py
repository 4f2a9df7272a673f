"""Generated cells beside held-out ones: drawn, compared, and written into a run's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from anndata.io import write_elem

from scdiff_data.base import write_aside, write_hdf5
from scdiff_data.evaluation.baselines import score_baselines
from scdiff_data.evaluation.figure import ReportContent, plot_report
from scdiff_data.evaluation.metrics import (
    MIN_CELLS,
    compare_cells,
    draw_mean_profiles,
    guess_types,
    shuffle_genes,
)
from scdiff_data.evaluation.panels import Samples
from scdiff_data.loading import CellBatch
from scdiff_data.telling import Progress
from scdiff_data.tokenizers import BinTokens
from scdiff_data.training import ScRNADataModule

if TYPE_CHECKING:
    from anndata import AnnData

N_COMPARED = 20_000
"""The most cells of a split that baselines are made from."""


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
    scores
        The `baselines`' likelihoods, and `compare_cells` of the `generated` cells, of `real` ones
        of another split, and of two cheats, `genes_shuffled` and `mean_profile`.
    type_names, type_shares
        Types, and the share of each among `generated`, `real` and `other` cells; or empty.
    """

    generated: "AnnData"
    samples: Samples
    split: str
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
            scores={name: own for name, own in self.scores.items() if name != "baselines"},
            type_names=self.type_names,
            type_shares=self.type_shares,
            curves=curves,
            losses=losses,
            baselines={self.split: self.scores["baselines"], **(baselines or {})},
        )
        plot_report(run_dir / "report.png", content)


def compare_with_split(
    model: Generator, datamodule: ScRNADataModule, *, split: str, n_cells: int, steps: int
) -> Comparison:
    """Generate cells and compare them with a split's."""
    other = {"val": datamodule.test_dataset, "test": datamodule.val_dataset}[split]
    held_out = {"val": datamodule.val_dataset, "test": datamodule.test_dataset}[split]
    train = datamodule.train_dataset[:N_COMPARED]
    second = other[:n_cells] if len(other) >= MIN_CELLS else train
    real_cg, train_tg = np.asarray(held_out[:n_cells].expression), np.asarray(train.expression)
    generated = model.generate(n_cells, steps=steps)
    counts = {
        "generated": generated.X.toarray(),
        "real": np.asarray(second.expression[:n_cells]),
        "genes_shuffled": shuffle_genes(train_tg)[:n_cells],
        "mean_profile": draw_mean_profiles(train_tg)[:n_cells],
    }
    scores: dict[str, Any] = {"baselines": score_baselines_of(datamodule, split)}
    with Progress("compare", "samples", len(counts)) as progress:
        for name, counts_cg in counts.items():
            scores[name] = compare_cells(counts_cg, real_cg, train_tg)
            progress.add()
    shown = {"generated": counts["generated"], "real": real_cg, "other": counts["real"]}
    names, shares = _share_types(shown, train, datamodule.categories)
    return Comparison(generated, Samples.cut(**shown), split, scores, names, shares)


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
    """
    comparison = compare_with_split(model, datamodule, split=split, n_cells=n_cells, steps=steps)
    comparison.write(run_dir)
    comparison.draw(run_dir, curves={}, losses=losses or {})
    return comparison.scores


def score_baselines_of(datamodule: ScRNADataModule, split: str) -> dict[str, float]:
    """What a split's counts cost without a model, see `score_baselines`."""
    held_out = {"val": datamodule.val_dataset, "test": datamodule.test_dataset}[split]
    with Progress("baselines"):
        return score_baselines(
            datamodule.train_dataset[:N_COMPARED],
            held_out[:N_COMPARED],
            tokenizer=cast("BinTokens", datamodule.tokenizer),
            labels=list(datamodule.categories),
        )


def _share_types(
    counts: Mapping[str, Any], train: CellBatch, categories: Mapping[str, Sequence[str]]
) -> tuple[Sequence[str], Mapping[str, Sequence[float]]]:
    """The share of each value of the first label of texts, guessed for all cells by one rule."""
    name = next((name for name, values in categories.items() if len(values) > 1), None)
    if name is None or not (np.asarray(train.metadata[name]) >= 0).any():
        return (), {}
    names, codes_t = categories[name], np.asarray(train.metadata[name])
    shares = {}
    for kind, counts_cg in counts.items():
        codes_c = guess_types(counts_cg, np.asarray(train.expression), codes_t)
        shares[kind] = (np.bincount(codes_c, minlength=len(names)) / len(codes_c)).tolist()
    return names, shares
