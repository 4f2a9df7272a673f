"""What training reads: `processed/batch_0000.h5` and so on, cells mixed, chosen genes only.

A shard is an HDF5 file of contiguous, uncompressed datasets, mapped into memory by its readers:

    expression       int16 [n_cells, n_genes]   counts, the best gene first
    cell_ids         fixed-length bytes [n_cells]
    experiment_ids   fixed-length bytes [n_cells]
    total_counts     int32 [n_cells]            of the whole cell, over all genes
    labels/NAME      numbers [n_cells], or for texts the codes and categories that anndata writes
    gene_ids, gene_symbols   fixed-length bytes [n_genes]
    gene_indices     int32 [n_genes]            places on the reference axis; -1: the data lack it
    fallback/…       only where cells may hold other genes, see `fallback.py`

All shards but the last hold `shard_size` cells, so a global row number is a shard and a row in it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from scdiff_data.archive import CsrRows, map_matrix
from scdiff_data.base import Workers, compiled, write_aside, write_categorical
from scdiff_data.shards.fallback import Replacements, fill_empty, write_replacements
from scdiff_data.store import DataDirectory

_BLOCK_BYTES = 64 << 20
"""Bytes of dense counts filled at a time, in each thread."""


def write_shards(
    directory: DataDirectory,
    cells: pa.Table,
    archives: Mapping[str, Path],
    *,
    gene_indices: NDArray[np.int64],
    gene_ids: Sequence[str],
    gene_symbols: Sequence[str],
    labels: Sequence[str],
    shard_size: int,
    fallback_min_genes: int = 0,
    key: str,
    n_threads: int = 1,
    report_cells: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Write all shards; one that an interrupted run finished, under the same key, stays.

    Parameters
    ----------
    directory
        Where they go; shards there of another key are deleted.
    cells
        One row a cell in global order: `cell_id`, `experiment_id` (dictionary), `archive_row`,
        `total_counts` and the labels.
    archives
        Path of every experiment's archive.
    gene_indices, gene_ids, gene_symbols
        The chosen genes: places in the archives, -1 for one of zeros, and names.
    labels
        Columns of `cells` to keep.
    shard_size
        Cells a shard.
    fallback_min_genes
        Of cells that express fewer of the chosen genes, empty places take other genes, see
        `fill_empty`; 0 never does.
    key
        Fingerprint of everything that decides the shards' content.
    n_threads
        Shards written at a time; each takes about 64 MB of memory.
    report_cells
        Called with the number of cells of each finished shard.
    """
    starts = range(0, len(cells), shard_size)
    paths = [directory.shard(number) for number in range(len(starts))]
    kept = {path for path in paths if _read_key(path) == key}
    for stale in set(directory.shards.glob("batch_*")) - kept:
        stale.unlink()
    experiments = cells["experiment_id"].combine_chunks()
    width = {name: _byte_width(cells[name]) for name in ("cell_id", "experiment_id")}
    matrices = {name: map_matrix(archives[name]) for name in experiments.dictionary.to_pylist()}
    slot_of_gene = np.full(next(iter(matrices.values())).n_genes, -1, np.int32)
    is_known = gene_indices >= 0
    slot_of_gene[gene_indices[is_known]] = np.flatnonzero(is_known)

    def write(start: int) -> None:
        path, part = paths[start // shard_size], cells.slice(start, shard_size)
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
                file["gene_indices"] = gene_indices.astype(np.int32)
                shape = (len(gene_indices), fallback_min_genes)
                _write_expression(file, part, matrices, slot_of_gene, *shape)
        report_cells(len(part))

    with Workers(n_threads) as workers:  # while one waits for the disk, another fills
        workers.map(write, starts)
    return paths


def _create(path: Path) -> h5py.File:
    """A new file whose large datasets start on a page of memory."""
    return h5py.File(path, "w", alignment_threshold=1 << 16, alignment_interval=4096)


def _write_expression(
    file: h5py.File,
    cells: pa.Table,
    matrices: Mapping[str, CsrRows],
    slot_of_gene: NDArray[np.int32],
    n_genes: int,
    fallback_min_genes: int,
) -> None:
    encoded = cells["experiment_id"].combine_chunks()
    names, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    rows = cells["archive_row"].to_numpy()
    expression = file.create_dataset("expression", (len(cells), n_genes), np.int16)
    replacements: list[Replacements] = []
    n_block = max(1, _BLOCK_BYTES // (2 * n_genes))
    for start in range(0, len(cells), n_block):
        block = np.zeros((min(n_block, len(cells) - start), n_genes), np.int16)
        block_codes, block_rows = codes[start : start + n_block], rows[start : start + n_block]
        for code in np.unique(block_codes):
            slots = np.flatnonzero(block_codes == code)
            slots = slots[np.argsort(block_rows[slots])]  # read each archive from front to back
            matrix = matrices[names[code]]
            arrays = matrix.indptr, matrix.indices, matrix.data
            _scatter_counts(*arrays, block_rows[slots], slots, slot_of_gene, block)
            if fallback_min_genes:
                replaced = fill_empty(
                    matrix,
                    block_rows[slots],
                    slots,
                    slot_of_gene,
                    block,
                    min_genes=fallback_min_genes,
                )
                replacements.append(replaced._replace(cells=replaced.cells + start))
        expression[start : start + len(block)] = block
    if fallback_min_genes:
        write_replacements(file, replacements, len(cells))


def _write_label(file: h5py.File, name: str, values: pa.Array) -> None:
    if pa.types.is_dictionary(values.type):
        write_categorical(file.require_group("labels"), name, pd.Categorical(values.to_pandas()))
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


# What `_scatter_counts` does, with 2 chosen genes of 4, and row 2 of an archive going to place 0:
#
#     slot_of_gene  -1  1  -1  0          gene 3 is the best one, then gene 1; others are left out
#     indptr        …  5  8               row 2 has the values 5 … 7
#     indices       …  0  1  3            genes
#     data          …  4  2  9            counts
#     block[0]      9  2
@compiled
def _scatter_counts(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
    rows: NDArray[Any],
    slots: NDArray[Any],
    slot_of_gene: NDArray[Any],
    block: NDArray[Any],
) -> None:
    for i in range(len(rows)):
        cell = block[slots[i]]
        low = indptr[rows[i]]
        high = indptr[rows[i] + 1]
        for k in range(np.uint64(low), np.uint64(high)):
            slot = slot_of_gene[np.uint64(indices[k])]
            if slot >= 0:
                cell[np.uint64(slot)] = data[k]
