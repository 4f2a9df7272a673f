"""One experiment in, one file out: `cells/{experiment_id}.h5ad`, int16 CSR over shared genes.

The file is an AnnData file that scanpy opens, and at the same time three flat arrays that readers
map into memory: `X/data` int16, `X/indices` and `X/indptr` int32 (both int64 from 2^31 values on),
contiguous and uncompressed.

Genes are aligned by id, cells filtered by QC, values checked on the way: what is in an archive is
counts, and what was left out is in its report.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiff_data.archive.cell_totals import CellSums, count_cells
from scdiff_data.archive.file import close_gap, lay_out_archive
from scdiff_data.archive.quality import QualityFilter
from scdiff_data.archive.transpose import is_ascending, sort_rows, transpose
from scdiff_data.archive.word_order import sort_naturally
from scdiff_data.base import Workers, pick_by_hash, write_aside
from scdiff_data.errors import CountError
from scdiff_data.reading import Alignment, GeneAxis, H5adFile, SourceMatrix

Selection = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Which of a file's cells are an experiment's, and which of these are looked at."""


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
        Values that were not quite whole, such as 2.99999, and count as the whole number.
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


def write_archive(
    source: Path,
    target: Path,
    *,
    experiment_id: str,
    axis: GeneAxis,
    quality: QualityFilter,
    max_cells: int | None,
    seed: int,
    max_memory: int,
    counts: str = "X",
    gene_ids: str | None = None,
    fewest_known: float = 0.5,
    needed: Sequence[str] = (),
    select: Callable[[pd.DataFrame], Selection] | None = None,
    n_threads: int = 1,
) -> ArchiveReport:
    """Convert one source file; writes nothing if no cell passes QC.

    Parameters
    ----------
    source, target
        The h5ad file as downloaded (`X` CSC, CSR or dense), and the archive to write.
    experiment_id
        Prefix of the cells' ids: `{experiment_id}_{barcode}`.
    axis
        The reference genes.
    quality
        Which cells are kept.
    max_cells, seed
        Cap on the cells kept, chosen by keyed hash of their ids; None keeps all that pass.
    max_memory
        Bytes that a block of the source may take; the archive itself is filled through a map.
    counts, gene_ids
        Where counts and gene ids lie, see `H5adFile`.
    fewest_known
        Fraction of the reference genes that the file must have, and one at least.
    needed
        Columns of the cells without which the file is of no use; of others, those that cannot be
        read are left out.
    select
        Of the cells' columns, which cells are the experiment's, and which of these are looked at,
        bool [n_cells] each; None takes all.
    n_threads
        Threads that inflate, sum and fill.

    Raises
    ------
    CountError
        If the file cannot be read, a value is not a count, a cell's name repeats, or the file has
        too few of the reference genes.
    """
    with H5adFile(source, counts, gene_ids) as file, Workers(n_threads) as workers:
        file_axis, gene_names = file.read_genes(axis)
        obs = file.obs.read_all(needed=needed)
        alignment = axis.align(gene_names)
        _check(source, obs, alignment, len(axis), fewest_known)
        every = np.ones(len(obs), bool)
        belongs, selected = (every, every) if select is None else select(obs)
        cells = np.flatnonzero(selected)
        matrix = SourceMatrix(
            file.x,
            obs.index,
            gene_names,
            max_memory=max_memory,
            workers=workers,
            cells=range(int(cells[0]), int(cells[-1]) + 1) if len(cells) else range(0),
        )
        is_mito = None
        if quality.max_mito_pct is not None:
            is_mito = file.mark_genes(quality.mito_genes)
        sums = count_cells(matrix, alignment.target, workers, is_mito)
        passing = selected & quality.passes(sums.n_genes, sums.totals, sums.mito_counts)
        left_out = quality.explain_loss(int(passing.sum()), int(selected.sum()))
        if left_out is not None:
            passing[:] = False
        rows = np.flatnonzero(passing)
        cell_ids = [f"{experiment_id}_{barcode}" for barcode in obs.index[rows]]
        if max_cells is not None:
            kept = pick_by_hash(cell_ids, max_cells, seed=seed, purpose="cells")
            rows, cell_ids = rows[kept], [cell_ids[row] for row in kept]
        n_saturated = int(sums.n_saturated[rows].sum())
        if len(rows):
            kept_obs = _archive_obs(obs.iloc[rows], cell_ids, experiment_id, sums, rows)
            starts = np.concatenate([[0], np.cumsum(sums.n_values[rows])])
            with (
                write_aside(target) as aside,
                lay_out_archive(aside, starts, kept_obs, axis) as store,
            ):
                transpose(matrix, alignment.target, rows, sums, store, workers)
                if not (sums.is_sorted and is_ascending(alignment.target)):
                    indices, data = store.map()
                    n_merged, n_newly_saturated = sort_rows(starts, indices, data)
                    n_saturated += n_newly_saturated
                    if n_merged.sum() < starts[-1]:
                        close_gap(aside, n_merged, indices, data, kept_obs, axis)
    return ArchiveReport(
        n_cells_in_file=int(belongs.sum()),
        n_cells_passing=int(passing.sum()),
        n_cells=len(rows),
        n_saturated=n_saturated,
        n_rounded=sums.n_rounded,
        n_filtered=int((belongs & ~selected).sum()),
        left_out=left_out,
        n_genes_unknown=alignment.n_unknown,
        n_genes_missing=alignment.n_missing,
        n_genes_duplicated=alignment.n_duplicates,
        file_genes=file_axis.digest,
    )


def _check(
    source: Path, obs: pd.DataFrame, alignment: Alignment, n_reference: int, fewest_known: float
) -> None:
    n_known = n_reference - alignment.n_missing
    if not n_known or n_known < n_reference * fewest_known:
        than = "" if not n_known else ", fewer than half"
        raise CountError(
            f"{source.name} has {n_known} of the {n_reference} reference genes{than}: another "
            "species, another kind of id or a targeted panel"
        )
    if not obs.index.is_unique:
        name = obs.index[obs.index.duplicated()][0]
        raise CountError(f"{source.name} has the cell name {name!r} twice: names must be unique")


def _archive_obs(
    obs: pd.DataFrame,
    cell_ids: list[str],
    experiment_id: str,
    sums: CellSums,
    rows: NDArray[np.int64],
) -> pd.DataFrame:
    """The source's columns, as `_plain` has them, under our own."""
    own = {
        "experiment_id": pd.Categorical([experiment_id] * len(obs)),
        "total_counts": sums.totals[rows],
        "n_genes": sums.n_genes[rows].astype(np.int32),
    }
    index = "_index" if "cell_id" in obs else "cell_id"
    frame = pd.DataFrame(own, index=pd.Index(cell_ids, name=index))
    for name in obs.columns.difference([*own, index], sort=False):
        if name and "/" not in name and set(name) != {"."}:  # else no name in HDF5
            frame[name] = _plain(obs[name])
    return frame


def _plain(column: pd.Series) -> NDArray[Any] | pd.Categorical:
    """A column in the types that every reader knows.

    Numbers and booleans as numpy has them, missing whole numbers as NaN; all else as a categorical
    of texts without blanks around them, booleans with gaps among it. What is blank is missing. A
    categorical keeps its order; other texts are in natural order.
    """
    is_bool = pd.api.types.is_bool_dtype(column)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biufc":
        return column.to_numpy()
    if pd.api.types.is_numeric_dtype(column) and not (is_bool and column.isna().any()):
        kind = getattr(column.dtype, "numpy_dtype", np.dtype(np.float64))
        if column.isna().any():
            return column.to_numpy(np.float64, na_value=np.nan)
        return column.to_numpy(kind)
    order: list[str] | None = None
    if isinstance(column.dtype, pd.CategoricalDtype):  # as a whole, 3 with gaps would become "3.0"
        categories = column.cat.categories
        if categories.dtype.kind == "f" and (categories == np.rint(categories)).all():
            categories = categories.astype(np.int64)  # as the same numbers of another file read
        words = np.array([*categories.astype("string"), None], object)
        order = [word.strip() for word in words[:-1]]
        column = pd.Series(words[column.cat.codes], index=column.index)
    text = column.astype("string").str.strip()
    text = text.str.lower() if is_bool else text  # as booleans without gaps read as a label
    values = text.mask(text == "").astype(object)
    used = set(values.dropna())
    if order is None or is_bool:
        order = sort_naturally(list(used))
    kept = [word for word in dict.fromkeys(order) if word in used]
    return pd.Categorical(
        values.where(values.notna(), None), categories=pd.Index(kept, dtype=object)
    )
