"""Gene statistics that merge, and the highly variable genes (HVGs) chosen from them.

Statistics are sums over cells, kept per experiment and split, so choosing genes again reads no
cell. Only training cells count: nothing of the validation or test cells leaks into the choice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from scdiff_data.archive import count_rows, map_matrix
from scdiff_data.cells import split_codes
from scdiff_data.draw import SPLITS
from scdiff_data.files import digest, write_aside
from scdiff_data.genes import GeneAxis

TARGET_SUM = 10_000.0
"""Counts a cell that scaled sums are taken at, as in `scanpy.pp.normalize_total`."""


@dataclass(frozen=True)
class GeneStatistics:
    """Sums over cells, one row a split (train, val, test) and one column a gene.

    Parameters
    ----------
    n_cells
        Cells, int64 [3].
    n_expressing
        Cells with a count above zero, int64 [3, n_genes].
    total, total_squared
        Sums of counts x and of x², exact, int64 [3, n_genes].
    scaled, scaled_squared
        The same of counts scaled to 10,000 a cell, float64 [3, n_genes].
    log, log_squared
        The same of log(1 + scaled count), float64 [3, n_genes].
    """

    n_cells: NDArray[np.int64]
    n_expressing: NDArray[np.int64]
    total: NDArray[np.int64]
    total_squared: NDArray[np.int64]
    scaled: NDArray[np.float64]
    scaled_squared: NDArray[np.float64]
    log: NDArray[np.float64]
    log_squared: NDArray[np.float64]

    @classmethod
    def from_archive(cls, path: Path, split_of_row: NDArray[np.int8]) -> "GeneStatistics":
        """Sum over an archive's cells; `split_of_row` is 0 train, 1 val, 2 test, -1 not drawn."""
        indptr, indices, data, n_genes = map_matrix(path)
        n_cells = np.bincount(split_of_row[split_of_row >= 0], minlength=len(SPLITS))
        shape = (len(SPLITS), n_genes)
        sums: list[Any] = [np.zeros(shape, np.int64) for _ in range(3)]
        sums += [np.zeros(shape, np.float64) for _ in range(4)]
        _sum_genes(indptr, indices, data, split_of_row, *sums)
        return cls(n_cells.astype(np.int64), *sums)

    def __add__(self, other: "GeneStatistics") -> "GeneStatistics":
        """Sums over the cells of both."""
        return GeneStatistics(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(self))
        )

    @classmethod
    def read(cls, path: Path, key: str) -> "GeneStatistics | None":
        """Read what `write` wrote under the same key, else None."""
        if not path.exists():
            return None
        with np.load(path) as stored:
            if str(stored["key"]) != key:
                return None
            return cls(**{f.name: stored[f.name] for f in fields(cls)})

    def write(self, path: Path, key: str) -> None:
        """Write a compressed npz; `key` names the cells and splits that were summed over."""
        arrays: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        with write_aside(path) as aside, aside.open("wb") as file:
            np.savez_compressed(file, key=np.array(key), **arrays)


@dataclass(frozen=True)
class GeneChoice:
    """The chosen genes, best first, and what the choice was made from.

    Parameters
    ----------
    indices
        Places on the reference axis, int64 [n_hvgs]; all genes in their order, if none were chosen.
    mean, dispersion
        Mean count and variance/mean of every reference gene over the training cells, float64
        [n_genes]; the dispersion of a gene that no cell expresses is 0.
    cell_fraction
        Fraction of training cells that express each gene, float64 [n_genes].
    n_cells, n_candidates
        Training cells, and genes that enough of them express.
    """

    indices: NDArray[np.int64]
    mean: NDArray[np.float64]
    dispersion: NDArray[np.float64]
    cell_fraction: NDArray[np.float64]
    n_cells: int
    n_candidates: int

    def to_dict(self, axis: GeneAxis, **settings: Any) -> dict[str, Any]:
        """The content of `hvg_info.json`."""
        ids = [axis.ids[i] for i in self.indices]
        dispersion = self.dispersion[self.indices]
        top = self.indices[np.argsort(-dispersion, kind="stable")[:10]]
        return {
            "hvg_indices": self.indices.tolist(),
            "hvg_names": ids,
            "hvg_symbols": [axis.symbols[i] for i in self.indices],
            "gene_to_hvg_idx": {gene: place for place, gene in enumerate(ids)},
            "flavor": "dispersion" if settings["n_hvgs"] is not None else "all",
            "settings": settings,
            "statistics": {
                "n_cells": self.n_cells,
                "n_genes": len(axis),
                "n_genes_passing": self.n_candidates,
                "dispersion": {
                    "min": float(dispersion.min()),
                    "median": float(np.median(dispersion)),
                    "mean": float(dispersion.mean()),
                    "max": float(dispersion.max()),
                },
                "top": [
                    {
                        "gene": axis.ids[i],
                        "symbol": axis.symbols[i],
                        "dispersion": float(self.dispersion[i]),
                        "percent_of_cells": float(100 * self.cell_fraction[i]),
                    }
                    for i in top
                ],
            },
        }


def sum_statistics(
    cells: pa.Table, archives: Mapping[str, Path], checksums: Mapping[str, str], folder: Path
) -> tuple[GeneStatistics, list[Path]]:
    """Sum over all drawn cells, reading again only experiments whose drawn cells or splits changed.

    Parameters
    ----------
    cells
        The drawn cells, with `experiment_id`, `archive_row` and `split`.
    archives, checksums
        Path and checksum of each experiment's archive.
    folder
        Where each experiment's statistics are kept.

    Returns
    -------
    statistics
        Added in the order of the experiments' ids, so that float sums are the same to the last bit.
    paths
        The experiments' files, in that order.
    """
    experiment = cells["experiment_id"].combine_chunks()
    codes, names = experiment.indices.to_numpy(), experiment.dictionary.to_pylist()
    archive_rows, splits = cells["archive_row"].to_numpy(), split_codes(cells)
    by_experiment = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[by_experiment], np.arange(len(names) + 1))
    total: GeneStatistics | None = None
    paths = []
    bar = tqdm(names, desc="gene statistics", unit="experiment", disable=None)
    for name, start, stop in zip(bar, bounds[:-1], bounds[1:], strict=True):
        drawn = by_experiment[start:stop]
        split_of_row = np.full(count_rows(archives[name]), -1, np.int8)
        split_of_row[archive_rows[drawn]] = splits[drawn]
        path = folder / f"{name}.npz"
        key = digest([checksums[name], split_of_row.tolist()])
        part = GeneStatistics.read(path, key)
        if part is None:
            part = GeneStatistics.from_archive(archives[name], split_of_row)
            part.write(path, key)
        paths.append(path)
        total = part if total is None else total + part
    assert total is not None
    return total, paths


def choose_genes(
    statistics: GeneStatistics, *, n_hvgs: int | None, min_cells_pct: float
) -> GeneChoice:
    """Choose the genes of highest dispersion, variance/mean of raw counts over the training cells.

    The variance is the unbiased one, as in `scanpy.pp.highly_variable_genes`; equal dispersions
    keep the order of the genes.

    Parameters
    ----------
    statistics
        Of all drawn cells; only the training row is used.
    n_hvgs
        How many; None keeps all genes in their order.
    min_cells_pct
        A gene is a candidate if at least this percentage of the training cells (0.1 = 0.1 %), and
        at least one, express it.

    Raises
    ------
    ValueError
        If fewer genes than `n_hvgs` are candidates.
    """
    train = SPLITS.index("train")
    n_cells = int(statistics.n_cells[train])
    n_expressing = statistics.n_expressing[train]
    total = statistics.total[train].astype(np.float64)
    mean = total / max(n_cells, 1)
    variance = (statistics.total_squared[train] - total * mean) / max(n_cells - 1, 1)
    dispersion = np.divide(variance, mean, out=np.zeros_like(mean), where=mean > 0)
    candidates = (n_expressing >= n_cells * min_cells_pct / 100) & (n_expressing > 0)
    n_candidates = int(candidates.sum())
    if n_hvgs is None:
        indices = np.arange(len(mean))
    elif n_hvgs > n_candidates:
        raise ValueError(
            f"n_hvgs={n_hvgs}, but only {n_candidates} of {len(mean)} genes are expressed in at "
            f"least {min_cells_pct} % of the {n_cells} training cells: lower n_hvgs or "
            "min_cells_pct, or set n_hvgs=null to keep all genes"
        )
    else:
        indices = np.argsort(np.where(candidates, -dispersion, np.inf), kind="stable")[:n_hvgs]
    return GeneChoice(
        indices=indices.astype(np.int64),
        mean=mean,
        dispersion=dispersion,
        cell_fraction=n_expressing / max(n_cells, 1),
        n_cells=n_cells,
        n_candidates=n_candidates,
    )


@numba.njit(cache=True, nogil=True)
def _sum_genes(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
    split_of_row: NDArray[Any],
    n_expressing: NDArray[Any],
    total: NDArray[Any],
    total_squared: NDArray[Any],
    scaled: NDArray[Any],
    scaled_squared: NDArray[Any],
    log: NDArray[Any],
    log_squared: NDArray[Any],
) -> None:
    for row in range(len(indptr) - 1):
        split = split_of_row[row]
        if split < 0:
            continue
        depth = 0
        for k in range(indptr[row], indptr[row + 1]):
            depth += data[k]
        for k in range(indptr[row], indptr[row + 1]):
            gene, count = indices[k], np.int64(data[k])
            at_target = count * (TARGET_SUM / depth)
            logarithm = np.log1p(at_target)
            n_expressing[split, gene] += 1
            total[split, gene] += count
            total_squared[split, gene] += count * count
            scaled[split, gene] += at_target
            scaled_squared[split, gene] += at_target * at_target
            log[split, gene] += logarithm
            log_squared[split, gene] += logarithm * logarithm
