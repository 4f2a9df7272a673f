"""What training reads: `processed/batch_0000.h5` and so on, cells mixed, chosen genes only.

A shard is an HDF5 file of contiguous, uncompressed datasets, mapped into memory by its readers:

    expression       int16 [n_cells, n_genes]   counts, the best gene first
    cell_ids         fixed-length bytes [n_cells]
    experiment_ids   fixed-length bytes [n_cells]
    total_counts     int32 [n_cells]            of the whole cell, over all genes
    labels/NAME      numbers [n_cells], or for texts the codes and categories that anndata writes
    gene_ids, gene_symbols   fixed-length bytes [n_genes]

All shards but the last hold `shard_size` cells, so a global row number is a shard and a row in it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numba
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from scdiff_data.archive import map_matrix
from scdiff_data.files import write_aside
from scdiff_data.mapping import copy_bytes, map_dataset

_BLOCK_BYTES = 64 << 20


def shard_path(folder: Path, number: int) -> Path:
    """Path of shard `number`, from 0 on."""
    return folder / f"batch_{number:04d}.h5"


def write_shards(
    folder: Path,
    cells: pa.Table,
    archives: Mapping[str, Path],
    *,
    gene_indices: NDArray[np.int64],
    gene_ids: Sequence[str],
    gene_symbols: Sequence[str],
    labels: Sequence[str],
    shard_size: int,
    key: str,
    report_cells: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Write all shards; one that an interrupted run finished, under the same key, stays.

    Parameters
    ----------
    folder
        Where they go; shards there of another key are deleted.
    cells
        One row a cell in global order: `cell_id`, `experiment_id` (dictionary), `archive_row`,
        `total_counts` and the labels.
    archives
        Path of every experiment's archive.
    gene_indices, gene_ids, gene_symbols
        The chosen genes: places in the archives, and names.
    labels
        Columns of `cells` to keep.
    shard_size
        Cells a shard.
    key
        Fingerprint of everything that decides the shards' content.
    report_cells
        Called with the number of cells of each finished shard.
    """
    starts = range(0, len(cells), shard_size)
    paths = [shard_path(folder, number) for number in range(len(starts))]
    for stale in set(folder.glob("batch_*")) - {path for path in paths if _read_key(path) == key}:
        stale.unlink()
    experiments = cells["experiment_id"].combine_chunks()
    width = {name: _byte_width(cells[name]) for name in ("cell_id", "experiment_id")}
    matrices = {name: map_matrix(archives[name]) for name in experiments.dictionary.to_pylist()}
    slot_of_gene = np.full(next(iter(matrices.values()))[3], -1, np.int64)
    slot_of_gene[gene_indices] = np.arange(len(gene_indices))
    for start, path in zip(starts, paths, strict=True):
        part = cells.slice(start, shard_size)
        if not path.exists():
            with write_aside(path) as aside, _create(aside) as file:
                file.attrs["key"] = key
                for name in ("cell_id", "experiment_id"):
                    values = part[name].cast(pa.string()).to_numpy()
                    file[f"{name}s"] = np.char.encode(values.astype(str), "utf-8").astype(
                        width[name]
                    )
                file["total_counts"] = part["total_counts"].to_numpy().astype(np.int32)
                for name in labels:
                    _write_label(file, name, part[name].combine_chunks())
                file["gene_ids"] = np.char.encode(np.array(gene_ids), "utf-8")
                file["gene_symbols"] = np.char.encode(np.array(gene_symbols), "utf-8")
                _write_expression(file, part, matrices, slot_of_gene, len(gene_indices))
        report_cells(len(part))
    return paths


def _create(path: Path) -> h5py.File:
    """A new file whose large datasets start on a page of memory."""
    return h5py.File(path, "w", alignment_threshold=1 << 16, alignment_interval=4096)


def _write_expression(
    file: h5py.File,
    cells: pa.Table,
    matrices: Mapping[str, tuple[NDArray[Any], NDArray[Any], NDArray[np.int16], int]],
    slot_of_gene: NDArray[np.int64],
    n_genes: int,
) -> None:
    encoded = cells["experiment_id"].combine_chunks()
    names, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    rows = cells["archive_row"].to_numpy()
    expression = file.create_dataset("expression", (len(cells), n_genes), np.int16)
    n_block = max(1, _BLOCK_BYTES // (2 * n_genes))
    for start in range(0, len(cells), n_block):
        block = np.zeros((min(n_block, len(cells) - start), n_genes), np.int16)
        block_codes, block_rows = codes[start : start + n_block], rows[start : start + n_block]
        for code in np.unique(block_codes):
            slots = np.flatnonzero(block_codes == code)
            slots = slots[np.argsort(block_rows[slots])]  # read each archive from front to back
            indptr, indices, data, _ = matrices[names[code]]
            _fill(indptr, indices, data, block_rows[slots], slots, slot_of_gene, block)
        expression[start : start + len(block)] = block


def _write_label(file: h5py.File, name: str, values: pa.Array) -> None:
    from anndata.io import write_elem

    if pa.types.is_dictionary(values.type):
        write_elem(file, f"labels/{name}", pd.Categorical(values.to_pandas()))
    else:
        file[f"labels/{name}"] = values.to_numpy(zero_copy_only=False)


def _byte_width(values: pa.ChunkedArray) -> str:
    longest = max(len(value.encode()) for value in values.unique().to_pylist())
    return f"S{longest}"


def _read_key(path: Path) -> str | None:
    if not path.exists() or not h5py.is_hdf5(path):
        return None
    with h5py.File(path) as file:
        return str(file.attrs["key"]) if "key" in file.attrs else None


class ShardMap:
    """All shards as one table of rows, gathered from their maps.

    Shards are mapped when a row of theirs is first asked for, in each process for itself; what is
    pickled or inherited by a fork holds no open file.

    Parameters
    ----------
    paths
        The shards in their order.
    shard_size
        Cells in each but the last.
    n_cells
        Cells in all.
    """

    def __init__(self, paths: Sequence[Path], *, shard_size: int, n_cells: int) -> None:
        self._paths, self._shard_size, self.n_cells = list(paths), shard_size, n_cells
        with h5py.File(self._paths[0]) as file:
            self.gene_ids: list[str] = [gene.decode() for gene in file["gene_ids"][:]]
            self.gene_symbols: list[str] = [gene.decode() for gene in file["gene_symbols"][:]]
            self.categories: dict[str, list[str]] = {}
            self._datasets = {name: name for name in ("expression", "total_counts")}
            self._datasets |= {"cell_id": "cell_ids", "experiment_id": "experiment_ids"}
            for name, label in file.get("labels", {}).items():
                is_text = isinstance(label, h5py.Group)
                self._datasets[name] = f"labels/{name}/codes" if is_text else f"labels/{name}"
                if is_text:
                    self.categories[name] = [c.decode() for c in label["categories"][:]]
            columns = {name: file[path] for name, path in self._datasets.items()}
            self._row_layout = {
                name: (c.dtype, c.dtype.itemsize * int(np.prod(c.shape[1:])), c.shape[1:])
                for name, c in columns.items()
            }
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_maps", "_addresses")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._maps: dict[int, list[NDArray[Any]]] = {}
        self._addresses = {name: np.zeros(len(self._paths), np.int64) for name in self._datasets}

    @property
    def labels(self) -> list[str]:
        """The labels that the shards keep."""
        return [name for name, path in self._datasets.items() if path.startswith("labels/")]

    def gather(self, name: str, rows: NDArray[np.int64], width: int | None = None) -> NDArray[Any]:
        """Rows of a column: `expression`, `total_counts`, `cell_id`, `experiment_id` or a label.

        Parameters
        ----------
        name
            The column.
        rows
            Global row numbers, int64 [n], each in 0 … n_cells - 1.
        width
            Of `expression`, only the first `width` genes.

        Returns
        -------
        values
            [n, width] for `expression`, else [n]; ids as bytes, text labels as codes (-1 missing).
        """
        if len(self._maps) < len(self._paths):
            for shard in np.unique(rows // self._shard_size):
                if shard not in self._maps:
                    self._map(int(shard))
        dtype, row_bytes, shape = self._row_layout[name]
        values = np.empty((len(rows), *(shape if width is None else (width,))), dtype)
        target = values.ctypes.data
        _gather(self._addresses[name], row_bytes, self._shard_size, rows, target, values.strides[0])
        return values

    def _map(self, shard: int) -> None:
        with h5py.File(self._paths[shard]) as file:
            self._maps[shard] = []
            for name, path in self._datasets.items():
                mapped = map_dataset(file[path])
                self._maps[shard].append(mapped)
                self._addresses[name][shard] = mapped.ctypes.data


@numba.njit(cache=True, nogil=True)
def _fill(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
    rows: NDArray[Any],
    slots: NDArray[Any],
    slot_of_gene: NDArray[Any],
    block: NDArray[Any],
) -> None:
    for i in range(len(rows)):
        for k in range(indptr[rows[i]], indptr[rows[i] + 1]):
            slot = slot_of_gene[indices[k]]
            if slot >= 0:
                block[slots[i], slot] = data[k]


@numba.njit(cache=True, nogil=True)
def _gather(
    addresses: NDArray[Any],
    row_bytes: int,
    shard_size: int,
    rows: NDArray[Any],
    target: int,
    n_bytes: int,
) -> None:
    """Copy the first `n_bytes` of each row to `target`, an address, one after another."""
    for i in range(len(rows)):
        shard, row = divmod(rows[i], shard_size)
        copy_bytes(target + i * n_bytes, addresses[shard] + row * row_bytes, n_bytes)
