"""700 real blood cells that come with scanpy."""

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiff_data.offline.local_bucket import (
    Experiment,
    make_experiment,
    metadata_path,
    write_bucket,
)
from scdiff_data.sources import Bucket, ScBaseCount

_N_PBMC_EXPERIMENTS = 7
"""Experiments that the 700 cells are divided into."""


@dataclass(frozen=True)
class Pbmc:
    """700 real blood cells x 765 genes, embedded in scanpy's wheel (10x PBMC 68k, reduced).

    scanpy ships them as log1p of counts scaled to 10,000 a cell; `invert_normalization` gives the
    counts back exactly. Genes have symbols only, so the symbol is the gene id too. The labels are
    `cell_type` and `n_counts`, the cell's total over all the genes that were measured.

    Zheng et al., Nature Communications 8:14049, 2017, doi:10.1038/ncomms14049.
    """

    def settings(self) -> dict[str, Any]:
        """Nothing to choose."""
        return {"source": "pbmc"}

    def open(self, workdir: Path) -> Bucket:
        """Write the cells into `workdir` as a bucket of 7 experiments, once."""
        layout = ScBaseCount(url=str(workdir))
        if not metadata_path(workdir, layout).exists():
            experiments = _read_pbmc()
            write_bucket(workdir, layout, experiments, {"tissue": ["blood"] * len(experiments)})
        return layout.open(workdir)

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """Read the written bucket's catalog."""
        return ScBaseCount(url=bucket.url).read_catalog(bucket)


def invert_normalization(normalized: sp.csr_matrix) -> tuple[sp.csr_matrix, NDArray[np.float64]]:
    """Counts behind log1p of counts scaled to a fixed total a cell.

    In each cell the smallest non-zero value must stand for one count. Dividing by it gives nearly
    whole numbers; a least-squares fit of the scale to the rounded numbers, repeated, removes the
    error that rounding the logarithms brought in.

    Parameters
    ----------
    normalized
        [n_cells, n_genes], non-negative.

    Returns
    -------
    counts
        float32 of whole numbers, the same shape.
    scale
        What one count of each cell is in normalised units, [n_cells].

    Raises
    ------
    ValueError
        If any value is further than 0.05 from a whole number of counts: then the matrix is not what
        it was taken for.
    """
    counts = normalized.astype(np.float64, copy=True)
    counts.data = np.expm1(counts.data)
    scale = np.ones(counts.shape[0])
    for cell, (start, end) in enumerate(zip(counts.indptr[:-1], counts.indptr[1:], strict=True)):
        if start == end:
            continue
        value = counts.data[start:end]
        one = value.min()
        for _ in range(10):
            whole = np.rint(value / one)
            one = value @ whole / (whole @ whole)
        error = np.abs(value / one - whole).max()
        if error > 0.05:
            raise ValueError(
                f"cell {cell} is not log1p of scaled counts: {error:.3f} from whole numbers"
            )
        counts.data[start:end] = whole
        scale[cell] = one
    return counts.astype(np.float32), scale


def _open_pbmc() -> Any:
    """What `scanpy.datasets.pbmc68k_reduced` gives, without the seconds that importing it takes."""
    import anndata

    spec = find_spec("scanpy")
    folder = Path(spec.origin).parent if spec is not None and spec.origin is not None else Path()
    path = folder / "datasets" / "10x_pbmc68k_reduced.h5ad"
    if not path.exists():  # a release that keeps it elsewhere
        import scanpy

        return scanpy.datasets.pbmc68k_reduced()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is in a format of years ago
        return anndata.read_h5ad(path)


def _read_pbmc() -> dict[str, Experiment]:
    cells = _open_pbmc()
    counts, scale = invert_normalization(sp.csr_matrix(cells.raw.X))
    n_counts = np.rint(cells.obs["n_counts"].to_numpy()).astype(np.int64)
    error = np.abs(1e4 / scale / n_counts - 1).max()
    if error > 0.0004:  # an independent proof of the inversion: the totals that the authors noted
        raise ValueError(f"scanpy's PBMC cells do not invert: totals are off by {error:.2%}")
    obs = pd.DataFrame(
        {"cell_type": cells.obs["bulk_labels"].astype(str).to_numpy(), "n_counts": n_counts},
        index=[barcode.split("-")[0] for barcode in cells.obs_names],
    )
    var = pd.DataFrame({"gene_symbols": cells.raw.var_names}, index=cells.raw.var_names)
    groups = np.array_split(np.arange(cells.n_obs), _N_PBMC_EXPERIMENTS)
    return {
        f"PBMC{number:02d}": make_experiment(
            counts[rows].tocsc(), obs=obs.iloc[rows].copy(), var=var
        )
        for number, rows in enumerate(groups, start=1)
    }
