"""Each experiment becomes a file: `cells/{experiment_id}.h5ad`, int16 CSR over shared genes.

The file is an AnnData file that scanpy opens, and at the same time three flat arrays that readers
map into memory: `X/data` int16, `X/indices` and `X/indptr` int32 (both int64 from 2^31 values on),
contiguous and uncompressed.

Genes are aligned by id, cells filtered by QC, values checked on the way: what is in an archive is
counts, and what was left out is in its report. However many experiments a source file holds, it is
read once to count its cells and, unless it fits into the memory allowed, once more to write them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiff_data.archive.cell_totals import QualityFilter, count_cells
from scdiff_data.archive.writing import CountedCells, name_cells
from scdiff_data.base import Workers, pick_by_hash
from scdiff_data.errors import CountError
from scdiff_data.reading import Alignment, GeneAxis, H5adFile, SourceMatrix

Assignment = tuple[NDArray[np.integer[Any]], NDArray[np.bool_]]
"""Which of some experiments each cell is of, counted from 0, -1 for none; whether it is looked at.
"""


@dataclass(frozen=True)
class ArchiveReport:
    """What became of one experiment's file.

    Parameters
    ----------
    n_cells_in_file, n_cells_passing, n_cells
        Cells in the source file, cells that pass QC, cells archived (fewer, if a cap cut them).
    n_saturated
        Counts above 32,767, stored as 32,767.
    n_genes_unknown, n_genes_missing, n_genes_duplicated
        Against the reference axis, see `Alignment`.
    file_genes
        Digest of the file's own gene axis.
    n_rounded
        Values of the cells archived that were not quite whole, such as 2.99999, and count as the
        whole number.
    n_filtered
        Cells that were not looked at.
    left_out
        Why none of the cells is archived, though some may pass QC; None if that is not so.
    """

    n_cells_in_file: int
    n_cells_passing: int
    n_cells: int
    n_saturated: int
    n_genes_unknown: int
    n_genes_missing: int
    n_genes_duplicated: int
    file_genes: str
    n_rounded: int = 0
    n_filtered: int = 0
    left_out: str | None = None


def write_archives(
    source: Path,
    targets: Mapping[str, Path],
    *,
    axis: GeneAxis,
    quality: QualityFilter,
    max_cells: int | None,
    seed: int,
    max_memory: int,
    counts: str = "X",
    gene_ids: str | None = None,
    fewest_known: float = 0.5,
    needed: Sequence[str] = (),
    assign: Callable[[pd.DataFrame], Assignment] | None = None,
    n_threads: int = 1,
) -> dict[str, ArchiveReport | CountError]:
    """Convert one source file; of an experiment of which no cell passes QC, nothing is written.

    What becomes of an experiment does not depend on which others are made with it. Archives are on
    their way to the disk: `flush_file` waits until one is there.

    Parameters
    ----------
    source
        The h5ad file as downloaded (`X` CSC, CSR or dense).
    targets
        The archives to write, by experiment, whose id is the prefix of its cells' ids:
        `{experiment_id}_{barcode}`.
    axis
        The reference genes.
    quality
        Which cells are kept.
    max_cells, seed
        Cap on the cells kept of each, chosen by keyed hash of their ids; None keeps all that pass.
    max_memory
        Bytes that a block of the source may take, the cells' columns likewise, and whatever else is
        read at a time; the archives are filled through a map.
    counts, gene_ids
        Where counts and gene ids lie, see `H5adFile`.
    fewest_known
        Fraction of the reference genes that the file must have, and one at least.
    needed
        Columns of the cells without which the file is of no use; of others, those that cannot be
        read are left out.
    assign
        Of the cells' columns, which of the experiments each cell is of, in the order of `targets`,
        and which cells are looked at; None takes all cells for the only experiment.
    n_threads
        Threads that inflate, sum and fill.

    Returns
    -------
    dict
        What became of each experiment: its report, or why it cannot be read although others can: a
        cell's name repeats.

    Raises
    ------
    CountError
        If the file cannot be read, a value is not a count, or the file has too few of the reference
        genes.
    UnsafeFileError
        If it leads to other files, or takes more memory than is allowed.
    """
    with (
        H5adFile(source, counts, gene_ids, max_memory=max_memory) as file,
        Workers(n_threads) as workers,
    ):
        file_axis, gene_names = file.read_genes(axis)
        obs = file.obs.read_all(needed=needed)
        alignment = axis.align(gene_names)
        _check_genes(source, alignment, len(axis), fewest_known)
        assigned: Assignment = np.zeros(len(obs), np.int8), np.ones(len(obs), bool)
        of_cell, is_seen = assigned if assign is None else assign(obs)
        cells_of = dict(zip(targets, _divide(of_cell, len(targets)), strict=True))
        problems = {
            experiment_id: CountError(
                f"{source.name} has the cell name {name!r} twice: names must be unique"
            )
            for experiment_id, own in cells_of.items()
            if (name := _find_repeated(obs.index[own])) is not None
        }
        if len(problems) == len(targets):
            return dict(problems)
        wanted = np.flatnonzero(is_seen & (of_cell >= 0))
        matrix = SourceMatrix(
            file.x,
            obs.index,
            gene_names,
            max_memory=max_memory,
            workers=workers,
            cells=range(int(wanted[0]), int(wanted[-1]) + 1) if len(wanted) else range(0),
        )
        is_mito = None
        if quality.max_mito_pct is not None:
            is_mito = file.mark_genes(quality.mito_genes)
        sums = count_cells(matrix, alignment.target, workers, is_mito)
        passing = is_seen & quality.passes(sums.n_genes, sums.totals, sums.mito_counts)
        rows_of: dict[str, NDArray[np.int64]] = {}
        reports: dict[str, ArchiveReport] = {}
        for experiment_id, own in cells_of.items():
            if experiment_id in problems:
                continue
            rows, n_seen = own[passing[own]], int(is_seen[own].sum())
            left_out = quality.explain_loss(len(rows), n_seen)
            rows = rows if left_out is None else rows[:0]
            n_passing = len(rows)
            if max_cells is not None:
                ids = name_cells(experiment_id, obs.index[rows])
                rows = rows[pick_by_hash(ids, max_cells, seed=seed, purpose="cells")]
            if len(rows):
                rows_of[experiment_id] = rows
            reports[experiment_id] = ArchiveReport(
                n_cells_in_file=len(own),
                n_cells_passing=n_passing,
                n_cells=len(rows),
                n_saturated=int(sums.n_saturated[rows].sum()),
                n_rounded=int(sums.n_rounded[rows].sum()),
                n_filtered=len(own) - n_seen,
                left_out=left_out,
                n_genes_unknown=alignment.n_unknown,
                n_genes_missing=alignment.n_missing,
                n_genes_duplicated=alignment.n_duplicates,
                file_genes=file_axis.digest,
            )
        counted = CountedCells(matrix, obs, alignment.target, sums, axis, workers)
        for experiment_id, n_more in counted.write(rows_of, targets).items():
            report = reports[experiment_id]
            reports[experiment_id] = replace(report, n_saturated=report.n_saturated + n_more)
    return {**problems, **reports}


def write_archive(
    source: Path, target: Path, *, experiment_id: str, **settings: Any
) -> ArchiveReport:
    """Convert a source file that is one experiment; settings as of `write_archives`.

    Raises
    ------
    CountError
        As `write_archives`, and if a cell's name repeats.
    """
    (outcome,) = write_archives(source, {experiment_id: target}, **settings).values()
    if isinstance(outcome, CountError):
        raise outcome
    return outcome


def _check_genes(source: Path, alignment: Alignment, n_reference: int, fewest_known: float) -> None:
    n_known = n_reference - alignment.n_missing
    if not n_known or n_known < n_reference * fewest_known:
        than = "" if not n_known else ", fewer than half"
        raise CountError(
            f"{source.name} has {n_known} of the {n_reference} reference genes{than}: another "
            "species, another kind of id or a targeted panel"
        )


def _divide(of_cell: NDArray[np.integer[Any]], n: int) -> list[NDArray[np.int64]]:
    """The cells of each of n experiments, ascending."""
    order = np.argsort(of_cell, kind="stable")
    bounds = np.searchsorted(of_cell[order], np.arange(n + 1))
    return [order[start:stop] for start, stop in pairwise(bounds.tolist())]


def _find_repeated(names: pd.Index) -> str | None:
    return None if names.is_unique else str(names[names.duplicated()][0])
