"""Damaged source files, prepared, and compared with what anndata reads: what children do."""

import shutil
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anndata as ad
import h5py
import numpy as np
import scanpy as sc
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiff_data import H5adFolder, Recipe, prepare
from scdiff_data.errors import ScdiffDataError
from scdiff_data.pipeline import assemble
from scdiff_data.reading import strip_versions
from support.fault_jobs import write_picture
from support.h5ad import LAYOUTS, counts_of, write_10x_h5, write_source
from support.isolated import Outcome
from support.mutants import write_mutant, write_mutant_folder

KINDS = ("csr", "csc", "dense", "csr-plain", "csc-plain", "dense-plain", "raw.X")
"""Of source files: how counts lie, compressed unless plain, or set aside in `raw`."""

SUFFIXES = {"10x": ".h5", "zarr": ".zarr"}
"""Kinds of source files that are no h5ad, and what their names end with."""

Counts = tuple[list[str], dict[str, NDArray[np.float64]]]
"""Ids of cells, and of each gene its count in each of them."""


def write_whole(folder: Path) -> None:
    """Write a whole source file of each kind."""
    for kind in KINDS:
        path, layout = folder / f"{kind}.h5ad", kind.removesuffix("-plain")
        if kind == "raw.X":
            write_source(path, sp.csr_matrix(counts_of(1, 30)))
            cells = ad.read_h5ad(path)
            cells.raw = cells.copy()
            cells.X = np.log1p(cells.X.toarray())
            cells.write_h5ad(path)
        else:
            packing = None if kind.endswith("plain") else "gzip"
            write_source(path, LAYOUTS[layout](counts_of(1, 30)), compression=packing)
    write_10x_h5(folder / "10x.h5", counts_of(1, 30))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of another format to come
        ad.read_h5ad(folder / "csr.h5ad").write_zarr(folder / "zarr.zarr")


def try_source(kind: str, sources: str, folder: str, seed: int, number: int) -> dict[str, str]:
    """Prepare one damaged copy; what became of it, and what was done to it."""
    warnings.simplefilter("ignore")
    place = "raw.X" if kind == "raw.X" else "X"
    suffix = SUFFIXES.get(kind, ".h5ad")
    whole, path = Path(sources) / f"{kind}{suffix}", Path(folder) / "files" / f"mutant{suffix}"
    path.parent.mkdir(exist_ok=True)
    write = write_mutant_folder if whole.is_dir() else write_mutant
    what = f"{kind} {number}: " + write(whole, path, seed=seed, number=number)
    print(what, flush=True)
    try:
        ours = _prepare(path, Path(folder) / "data", place)
    except (ScdiffDataError, ValueError, OSError) as error:
        # What a file that is no h5ad was made into is called by its name, too.
        name = "mutant." if kind in SUFFIXES else path.name
        if isinstance(error, ScdiffDataError) and name in str(error):
            return {"kind": "clear", "what": what}
        raise
    print("prepared; anndata reads it", flush=True)
    theirs, problem = _read(path, place)
    if theirs is None:  # then nothing but what was there may come out
        theirs, _ = _read(whole, place)
        what += f"; anndata cannot read it: {problem}"
    difference = _compare(ours, theirs)
    if difference is None:
        return {"kind": "right", "what": what}
    return {"kind": "wrong", "what": f"{what}: {difference}"}


def is_anndatas(outcome: Outcome) -> bool:
    """Whether the process ended where anndata read, after the package had prepared the file."""
    return outcome.text.rstrip().endswith("anndata reads it")


def warm_up() -> None:
    """Do it once."""
    with TemporaryDirectory() as folder:
        write_whole(Path(folder))
        for kind in (*KINDS, *SUFFIXES):
            path = Path(folder) / f"{kind}{SUFFIXES.get(kind, '.h5ad')}"
            _prepare(path, Path(folder) / "data", "raw.X" if kind == "raw.X" else "X")
            _read(path, "X")


def _prepare(path: Path, data_dir: Path, place: str) -> Counts:
    assemble.plot_hvgs = write_picture
    shutil.rmtree(data_dir, ignore_errors=True)
    recipe = Recipe(
        source=H5adFolder(str(path), counts=place),
        min_genes=None,
        min_counts=None,
        n_hvgs=1,
        split={"by": "cell", "val": 0, "test": 0},
        labels=(),
        min_cells_pct=0,
    )
    prepare(recipe, data_dir, n_threads=1)
    archive = ad.read_h5ad(data_dir / "cells" / f"{path.stem}.h5ad")
    columns = archive.X.toarray().astype(np.float64).T
    ids = [name.removeprefix(f"{path.stem}_") for name in archive.obs_names]
    return ids, dict(zip(archive.var_names, columns, strict=True))


def _read(path: Path, place: str) -> tuple[Counts | None, str]:
    """What anndata or scanpy reads; None, and why, if it cannot."""
    try:
        if path.suffix in SUFFIXES.values():
            return _read_foreign(path), ""
        with h5py.File(path) as file:
            group = file["raw"] if place == "raw.X" else file
            matrix = group["X"]
            if isinstance(matrix, h5py.Group):
                problem = _find_outside(matrix)
                if problem is not None:  # scipy would read beyond its arrays
                    return None, problem
            values = ad.io.read_elem(matrix)
            cells, genes = _read_names(file["obs"]), _read_names(group["var"])
            dense = np.asarray(values.toarray() if sp.issparse(values) else values, np.float64)
    except Exception as error:  # noqa: BLE001 - a damaged file makes libraries raise anything
        return None, f"{type(error).__name__}: {error}"[:200]
    if dense.shape != (len(cells), len(genes)):
        return None, f"{dense.shape} counts of {len(cells)} cells and {len(genes)} genes"
    return (cells, _add_up(genes, dense)), ""


def _read_foreign(path: Path) -> Counts:
    if path.suffix == ".zarr":
        cells = ad.read_zarr(path)
    else:
        cells = sc.read_10x_h5(path)
        cells.var_names = list(cells.var["gene_ids"])
    if sp.issparse(cells.X):
        cells.X.check_format()
    dense = np.asarray(cells.X.toarray() if sp.issparse(cells.X) else cells.X, np.float64)
    return _to_texts(cells.obs_names), _add_up(_to_texts(cells.var_names), dense)


def _add_up(genes: list[str], dense: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Of each gene its counts, those of one that is there twice added."""
    columns: dict[str, Any] = {}
    for name, column in zip(strip_versions(genes), dense.T, strict=True):
        columns[name] = columns.get(name, 0) + column
    return columns


def _read_names(frame: h5py.Group) -> list[str]:
    """Names of a frame's rows; alone, if anndata cannot read a column beside them."""
    try:
        return _to_texts(ad.io.read_elem(frame).index)
    except Exception:  # noqa: BLE001 - as above
        return _to_texts(ad.io.read_elem(frame[frame.attrs["_index"]]))


def _to_texts(names: Any) -> list[str]:
    """Names as texts: anndata gives bytes where a file says no encoding."""
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _find_outside(matrix: h5py.Group) -> str | None:
    indptr, indices = matrix["indptr"][:], matrix["indices"][:]
    shape = [int(n) for n in matrix.attrs["shape"]]
    is_csr = matrix.attrs["encoding-type"] == "csr_matrix"
    major, minor = shape if is_csr else shape[::-1]
    if len(indptr) != major + 1 or indptr[0] != 0 or (np.diff(indptr.astype(np.int64)) < 0).any():
        return "indptr is none"
    if not len(indices) == len(matrix["data"]) == indptr[-1]:
        return "lengths differ"
    if len(indices) and (indices.min() < 0 or indices.max() >= minor):
        return "indices lie outside"
    return None


def _compare(ours: Counts, theirs: Counts | None) -> str | None:
    if theirs is None:
        return "not even the whole file can be read"
    if ours[0] != theirs[0]:
        return f"cells {ours[0][:3]} … {len(ours[0])} are {theirs[0][:3]} … {len(theirs[0])}"
    missing = ours[1].keys() ^ theirs[1].keys()
    if any(theirs[1].get(name, ours[1].get(name)).any() for name in missing):
        return f"genes {sorted(missing)[:3]} are only in one"
    for name in ours[1].keys() & theirs[1].keys():
        kept = np.minimum(np.rint(theirs[1][name]), 32_767)
        if not np.array_equal(ours[1][name], kept):
            cell = int(np.flatnonzero(ours[1][name] != kept)[0])
            return f"{name} in cell {cell}: {ours[1][name][cell]}, not {theirs[1][name][cell]}"
    return None
