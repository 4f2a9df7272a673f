"""Small h5ad files as sources may have them, and their archives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdiff_data.archive import ArchiveReport, QualityFilter, write_archive
from scdiff_data.reading.h5ad import read_gene_axis

GENES = [f"ENSG{i:03d}" for i in range(40)]


def counts_of(seed: int = 0, n_cells: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.3, 4, (n_cells, len(GENES)))).astype(np.float32)


def write_source(path: Path, matrix: Any, genes: list[str] | None = None, **settings: Any) -> Path:
    cells = ad.AnnData(
        matrix,
        obs=pd.DataFrame(
            {"cell_type": ["B cell", ""] * (matrix.shape[0] // 2), "age": 3.5},
            index=[f"BARCODE{i}" for i in range(matrix.shape[0])],
        ),
        var=pd.DataFrame(index=genes or GENES[: matrix.shape[1]]),
    )
    cells.write_h5ad(path, **({"compression": "gzip"} | settings))
    return path


def write_10x_h5(path: Path, counts: np.ndarray) -> Path:
    """Write counts, [cells, genes], as Cell Ranger does: a matrix of features x barcodes."""
    matrix = sp.csc_matrix(counts.T.astype(np.int32))
    n_genes, n_cells = matrix.shape
    with h5py.File(path, "w") as file:
        file.attrs.update({"filetype": "matrix", "version": 2})
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(matrix.shape, np.int32)
        group["barcodes"] = [f"cell{i}".encode() for i in range(n_cells)]
        group["features/id"] = [f"ENSG{i:011d}".encode() for i in range(n_genes)]
        group["features/name"] = [f"GENE{i}".encode() for i in range(n_genes)]
        group["features/feature_type"] = [b"Gene Expression"] * n_genes
        group["features/genome"] = [b"GRCh38"] * n_genes
    return path


def archive(source: Path, target: Path, **changes: Any) -> ArchiveReport:
    """Convert a file that is one experiment, `SRX1`."""
    settings: dict[str, Any] = {
        "axis": read_gene_axis(source),
        "quality": QualityFilter(),
        "max_cells": None,
        "seed": 0,
        "max_memory": 1 << 30,
    }
    return write_archive(source, target, experiment_id="SRX1", **(settings | changes))


LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "csc": sp.csc_matrix,
    "csr": sp.csr_matrix,
    "dense": np.asarray,
}
