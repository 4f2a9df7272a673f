"""Files that are no h5ad, made into one: 10x matrices and AnnData in zarr."""

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdiff_data.base import write_aside, write_hdf5
from scdiff_data.errors import CountError, UnsafeFileError
from scdiff_data.opening import explain, open_hdf5, release

FileKind = Literal["h5ad", "10x h5", "10x mtx", "zarr"]
"""Kinds of files that are read."""

_MATRIX = re.compile(r"(.*)matrix\.mtx(\.gz)?")
"""The matrix among the three files of 10x; what stands before it begins the others' names, too."""


_ZARR_METADATA = (".zarray", ".zgroup", ".zmetadata", "zarr.json")
"""Files of a zarr store that say how its arrays are read."""


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
        with open_hdf5(path) as file:
            names = [name for name in file if file.get_kind(name) == h5py.h5l.TYPE_HARD]
            return any(
                isinstance(group := file[name], h5py.Group) and {"barcodes", "indptr"} <= set(group)
                for name in names
            )
    except (CountError, OSError, KeyError, RuntimeError):
        return False


def convert_foreign(source: Path, target: Path) -> None:
    """Write a 10x `.h5`, the folder of a 10x `matrix.mtx`, or an AnnData zarr as h5ad.

    All of it is in memory meanwhile. 10x files keep genes alone, indexed by id, with their symbols
    in `gene_symbols`.

    Raises
    ------
    CountError
        If it cannot be read.
    UnsafeFileError
        If it leads to other files, is larger than this machine's memory, or has pickled values.
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
            _check_zarr(source)
            cells = anndata.read_zarr(source)
        else:
            cells = _read_10x_h5(source) if kind == "10x h5" else _read_10x_mtx(source)
        if cells.n_vars == 0:
            raise CountError(f"{source.name} has no genes")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        explain(source, f"as {kind}"),  # an h5ad cannot hold all that a zarr can
        write_aside(target) as aside,
        write_hdf5(aside) as file,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        anndata.io.write_elem(file, "/", cells)


def _read_10x_h5(path: Path) -> Any:
    import scanpy

    with open_hdf5(path, max_memory=_count_memory()) as file:
        release(file)  # what scanpy opens by itself was looked at
    cells = scanpy.read_10x_h5(path, gex_only=False)
    cells.X = _check_places(cells.X)
    if "feature_types" in cells.var:
        cells = cells[:, cells.var["feature_types"] == "Gene Expression"].copy()
    cells.var["gene_symbols"] = list(cells.var_names)
    cells.var_names = list(cells.var.pop("gene_ids"))
    return cells


def _check_places(matrix: Any) -> Any:
    """A sparse matrix whose places are whole, as int64, before compiled code follows them.

    Scipy looks no further where the last place is not above 0, as one that wrapped around may be.
    """
    indices, indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    if indptr[-1] != len(matrix.data):
        raise ValueError(f"its indptr ends at {indptr[-1]}, it has {len(matrix.data)} counts")
    checked = type(matrix)((matrix.data, indices, indptr), matrix.shape)
    checked.check_format()
    return checked


def _read_10x_mtx(path: Path) -> Any:
    """A matrix of genes x cells, with the lists beside it, compressed or not."""
    import anndata
    from scipy.io import mminfo, mmread

    n_genes, n_cells, n_values, *_ = mminfo(path)
    _check_memory(path, "all of it", 16 * int(n_values) + 200 * (int(n_genes) + int(n_cells)))
    genes = _read_list(path, "features", "genes", most=int(n_genes) + 1)
    barcodes = _read_list(path, "barcodes", most=int(n_cells) + 1)
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


def _read_list(matrix: Path, *names: str, most: int) -> pd.DataFrame:
    """The list of genes or cells that stands beside a matrix; of a longer one the first `most`."""
    start = matrix.name.split("matrix.mtx")[0]
    for name in names:
        for end in ("", ".gz"):
            path = matrix.with_name(f"{start}{name}.tsv{end}")
            if path.exists():
                texts: dict[str, Any] = {"sep": "\t", "header": None, "dtype": str}
                read: pd.DataFrame = pd.read_csv(path, nrows=most, keep_default_na=False, **texts)
                return read
    raise CountError(f"{matrix.name} has no {start}{names[0]}.tsv beside it, which names its rows")


def _check_zarr(store: Path) -> None:
    """Refuse a store that leads out of its folder, runs code, or does not fit into memory.

    Raises
    ------
    UnsafeFileError
        If a link in it leads out of it, a codec unpickles, or its arrays are too large.
    """
    root, n_bytes = store.resolve(), 0
    for folder, folders, files in os.walk(root):
        for path in (Path(folder, name) for name in [*folders, *files]):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise UnsafeFileError(
                    f"{store.name} is refused: {path.relative_to(root)} is a link out of it, to "
                    f"{str(path.readlink())!r}: copy the data into it, if you trust it"
                )
        for path in (Path(folder, name) for name in _ZARR_METADATA if name in files):
            place = f"{path.relative_to(root)}"
            for said in _walk_json(json.loads(path.read_text("utf-8"))):
                if any(str(said.get(key)).endswith("pickle") for key in ("id", "name")):
                    raise UnsafeFileError(
                        f"{store.name} is refused: {place} names a codec that runs what is stored "
                        "(pickle): write it anew without, e.g. with anndata.AnnData.write_zarr"
                    )
                size, chunk = _measure_array(said)
                n_bytes += size if path.name != ".zmetadata" else 0  # said of all arrays again
                _check_memory(store, place, max(size, chunk))
    _check_memory(store, "all of it", n_bytes)


def _walk_json(content: Any) -> Iterator[Mapping[str, Any]]:
    """All mappings in what a JSON file holds."""
    if isinstance(content, Mapping):
        yield content
    inner = content.values() if isinstance(content, Mapping) else content
    for value in inner if isinstance(inner, list) or isinstance(content, Mapping) else ():
        yield from _walk_json(value)


def _measure_array(said: Mapping[str, Any]) -> tuple[int, int]:
    """Bytes of a zarr array and of one of its chunks, by its metadata; 0 for other mappings."""
    kind = said.get("dtype", said.get("data_type"))
    if kind is None or not isinstance(said.get("shape"), list):
        return 0, 0
    try:
        width = np.dtype(kind).itemsize or 8
    except (TypeError, ValueError):
        width = 8  # texts
    grid = said.get("chunk_grid")
    inner = grid.get("configuration", {}).get("chunk_shape") if isinstance(grid, Mapping) else None
    chunk = said.get("chunks", inner) or ()
    return width * prod(map(int, said["shape"])), width * prod(map(int, chunk))


def _check_memory(path: Path, what: str, n_bytes: int) -> None:
    if n_bytes > (most := _count_memory()):
        raise UnsafeFileError(
            f"{path.name} is refused: {what} takes {n_bytes:,} bytes, and it is read as a whole on "
            f"a machine of {most:,}: make it an h5ad, which is read in parts"
        )


def _count_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
