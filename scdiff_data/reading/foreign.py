"""Files that are no h5ad, made into one: 10x matrices and AnnData in zarr."""

import re
import warnings
from pathlib import Path
from typing import Any, Literal

import h5py
import pandas as pd
import scipy.sparse as sp

from scdiff_data.base import write_aside, write_hdf5
from scdiff_data.errors import CountError
from scdiff_data.reading.faults import explain

FileKind = Literal["h5ad", "10x h5", "10x mtx", "zarr"]
"""Kinds of files that are read."""

_MATRIX = re.compile(r"(.*)matrix\.mtx(\.gz)?")
"""The matrix among the three files of 10x; what stands before it begins the others' names, too."""


def tell_kind(name: str) -> FileKind | None:
    """The kind of a file or folder by its name; None if it is not read."""
    last = name.rstrip("/").rsplit("/", 1)[-1]
    if last.endswith(".h5ad"):
        return "h5ad"
    if last.endswith(".h5"):
        return "10x h5"
    if last.endswith(".zarr"):
        return "zarr"
    return "10x mtx" if _MATRIX.fullmatch(last) else None


def is_10x(path: Path) -> bool:
    """Whether an HDF5 file holds a 10x matrix: many other files are called `.h5`."""
    try:
        with h5py.File(path) as file:
            return any(
                isinstance(group, h5py.Group) and {"barcodes", "indptr"} <= set(group)
                for group in file.values()
            )
    except (OSError, KeyError, RuntimeError):
        return False


def convert_foreign(source: Path, target: Path) -> None:
    """Write a 10x `.h5`, the folder of a 10x `matrix.mtx`, or an AnnData zarr as h5ad.

    All of it is in memory meanwhile. 10x files keep genes alone, indexed by id, with their symbols
    in `gene_symbols`.

    Raises
    ------
    CountError
        If it cannot be read.
    ImportError
        If it is zarr and zarr is not installed.
    """
    import anndata

    kind = tell_kind(source.name)
    with warnings.catch_warnings(), explain(source, f"as {kind}"):
        warnings.simplefilter("ignore")  # of names that repeat, and of old formats
        if kind == "zarr":
            try:
                import zarr  # noqa: F401
            except ImportError as error:
                raise ImportError(f"{source} needs zarr: pip install zarr") from error
            cells = anndata.read_zarr(source)
        else:
            cells = _read_10x_h5(source) if kind == "10x h5" else _read_10x_mtx(source)
        if cells.n_vars == 0:
            raise CountError(f"{source.name} has no genes")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        write_aside(target) as aside,
        write_hdf5(aside) as file,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        anndata.io.write_elem(file, "/", cells)


def _read_10x_h5(path: Path) -> Any:
    import scanpy

    cells = scanpy.read_10x_h5(path)
    cells.var["gene_symbols"] = list(cells.var_names)
    cells.var_names = list(cells.var.pop("gene_ids"))
    return cells


def _read_10x_mtx(path: Path) -> Any:
    """A matrix of genes x cells, with the lists beside it, compressed or not."""
    import anndata
    from scipy.io import mmread

    genes, barcodes = _read_list(path, "features", "genes"), _read_list(path, "barcodes")
    matrix = sp.csr_matrix(mmread(path).T)
    if matrix.shape != (len(barcodes), len(genes)):
        raise CountError(
            f"{path.name} is damaged: it is {matrix.shape[1]} x {matrix.shape[0]}, beside it are "
            f"{len(genes)} genes and {len(barcodes)} cells"
        )
    var = pd.DataFrame({"gene_symbols": list(genes[min(1, genes.shape[1] - 1)])}, list(genes[0]))
    cells = anndata.AnnData(matrix, pd.DataFrame(index=list(barcodes[0])), var)
    if genes.shape[1] > 2 and (genes[2] == "Gene Expression").any():
        cells = cells[:, (genes[2] == "Gene Expression").to_numpy()].copy()
    return cells


def _read_list(matrix: Path, *names: str) -> pd.DataFrame:
    """The list of genes or cells that stands beside a matrix."""
    start = matrix.name.split("matrix.mtx")[0]
    for name in names:
        for end in ("", ".gz"):
            path = matrix.with_name(f"{start}{name}.tsv{end}")
            if path.exists():
                return pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False)
    raise CountError(f"{matrix.name} has no {start}{names[0]}.tsv beside it, which names its rows")
