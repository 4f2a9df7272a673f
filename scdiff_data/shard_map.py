"""All shards as one table of rows, copied from their memory maps by a compiled loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numba
import numpy as np
from numpy.typing import NDArray

from scdiff_data.fallback import map_replacements, replace_genes
from scdiff_data.mapping import copy_bytes, map_dataset


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
            self.gene_indices: NDArray[np.int64] = file["gene_indices"][:].astype(np.int64)
            self.has_fallback = "fallback" in file
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
        return {
            k: v
            for k, v in self.__dict__.items()
            if k not in ("_maps", "_addresses", "_replacements")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._maps: dict[int, list[NDArray[Any]]] = {}
        self._replacements: dict[int, tuple[NDArray[Any], ...]] = {}
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

    def gather_gene_ids(self, rows: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """Which gene each place of these rows holds: places on the reference axis, [n, width]."""
        gene_ids = np.tile(self.gene_indices[:width], (len(rows), 1))
        shards, rows_there = np.divmod(rows, self._shard_size)
        for shard in np.unique(shards):
            if shard not in self._replacements:
                with h5py.File(self._paths[shard]) as file:
                    self._replacements[shard] = map_replacements(file)
            mine = shards == shard
            part = gene_ids[mine]
            replace_genes(self._replacements[shard], rows_there[mine], part)
            gene_ids[mine] = part
        return gene_ids

    def _map(self, shard: int) -> None:
        with h5py.File(self._paths[shard]) as file:
            self._maps[shard] = []
            for name, path in self._datasets.items():
                mapped = map_dataset(file[path])
                self._maps[shard].append(mapped)
                self._addresses[name][shard] = mapped.ctypes.data


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
