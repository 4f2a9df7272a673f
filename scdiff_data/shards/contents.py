"""What a shard holds, how one is written, and whether all are whole.

A shard is an HDF5 file of contiguous, uncompressed datasets, mapped into memory by its readers:

    cell_ids         fixed-length bytes [n_cells]
    experiment_ids   fixed-length bytes [n_cells]
    total_counts     int32 [n_cells]            of the whole cell, over all genes
    labels/NAME      numbers [n_cells], or for texts `codes` and `categories`, fixed-length bytes
    gene_ids, gene_symbols   fixed-length bytes [n_genes]
    gene_indices     int32 [n_genes]            places on the reference axis; -1: the data lack it
    expression       int16 [n_cells, n_genes]   counts, the best gene first; in a dense shard
    starts, packed   uint32 or uint64 [n_cells + 1], uint8   of a compact one: `shuffle/packing.py`
    fallback/…       only where cells may hold other genes, see `fallback.py`

All shards but the last hold `shard_size` cells, so a global row number is a shard and a row in it.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scdiff_data.base import explain_damage, write_aside, write_hdf5
from scdiff_data.errors import ManifestError
from scdiff_data.shards.fallback import write_replacements
from scdiff_data.shards.formats import ShardFormat, choose_starts_type, get_key, set_key, stamp
from scdiff_data.shuffle import PackedRows
from scdiff_data.store import Manifest
from scdiff_data.telling import Progress

ID_COLUMNS = ("cell_id", "experiment_id")
"""Columns of the cells that become bytes of a fixed length."""

OWN_COLUMNS = (*ID_COLUMNS, "total_counts")
"""Columns of the cells that every shard has."""

_BLOCK_BYTES = 16 << 20
"""Bytes of dense counts written at a time, in each thread."""


@dataclass(frozen=True, kw_only=True)
class ShardGenes:
    """The genes that shards hold, best first.

    Parameters
    ----------
    indices
        Places in the archives, -1 for one of zeros; int64 [n_genes].
    ids, symbols
        Names.
    n_values
        Counts of theirs above 0 in all drawn cells.
    """

    indices: NDArray[np.int64]
    ids: Sequence[str]
    symbols: Sequence[str]
    n_values: int


class ShardWriter:
    """Writes shards, each from its cells' columns and packed rows.

    Parameters
    ----------
    genes
        The genes.
    labels
        Columns of the cells to keep; of texts, their words in the order of the codes, else None.
    id_bytes
        Of each of `cell_id` and `experiment_id`, bytes of the longest: of one length in all shards.
    shard_size
        Cells in each but the last.
    shard_format
        How counts lie.
    has_fallback
        Whether places may hold other genes.
    key
        What the shards' attribute `key` is to be.
    """

    def __init__(
        self,
        genes: ShardGenes,
        labels: Mapping[str, Sequence[str] | None],
        id_bytes: Mapping[str, int],
        *,
        shard_size: int,
        shard_format: ShardFormat,
        has_fallback: bool,
        key: str,
    ) -> None:
        self._genes = genes
        self._labels = labels
        self._id_bytes = id_bytes
        self._format = shard_format
        self._starts_type = choose_starts_type(shard_size, len(genes.indices))
        self._has_fallback = has_fallback
        self._key = key

    def write(self, path: Path, cells: pa.Table, rows: PackedRows) -> None:
        """Write a shard, whole or not at all; `cells` and `rows` are in its order."""
        with write_aside(path) as aside, create_shard(aside) as file:
            set_key(file, self._key)
            for name in ID_COLUMNS:
                values = cells[name].cast(pa.string()).to_numpy()
                encoded = np.char.encode(values.astype(str), "utf-8")
                file[f"{name}s"] = encoded.astype(f"S{self._id_bytes[name]}")
            file["total_counts"] = cells["total_counts"].to_numpy().astype(np.int32)
            for name, words in self._labels.items():
                _write_label(file, name, cells[name], words)
            file["gene_ids"] = np.char.encode(np.array(self._genes.ids), "utf-8")
            file["gene_symbols"] = np.char.encode(np.array(self._genes.symbols), "utf-8")
            file["gene_indices"] = self._genes.indices.astype(np.int32)
            if self._format == "dense":
                write_dense(file, rows, len(self._genes.indices))
            else:
                write_packed(file, rows, self._starts_type)
            if self._has_fallback:
                write_replacements(file, rows.n_replaced, *rows.list_replaced())


def create_shard(path: Path) -> AbstractContextManager[h5py.File]:
    """A new file whose large datasets start on a page of memory."""
    return write_hdf5(path, alignment_threshold=1 << 16, alignment_interval=4096)


def write_dense(file: h5py.File, rows: PackedRows, n_genes: int) -> None:
    """Write packed rows as dense ones."""
    expression = file.create_dataset("expression", (len(rows), n_genes), np.int16)
    n_block = max(1, _BLOCK_BYTES // (2 * n_genes))
    for start in range(0, len(rows), n_block):
        block = rows.take(slice(start, start + n_block)).unpack(n_genes)
        expression[start : start + len(block)] = block


def write_packed(file: h5py.File, rows: PackedRows, starts_type: type[Any]) -> None:
    """Write packed rows one after another, and where each starts."""
    starts, packed = rows.join()
    file["starts"] = starts.astype(starts_type)
    file["packed"] = packed


def _write_label(
    file: h5py.File, name: str, values: pa.ChunkedArray, words: Sequence[str] | None
) -> None:
    if words is None:
        file[f"labels/{name}"] = values.to_numpy()
        return
    found = pc.index_in(values.cast(pa.string()), pa.array(words, pa.string()))
    codes = found.combine_chunks().fill_null(-1).to_numpy()
    of_words = pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(words)))
    file[f"labels/{name}/codes"] = of_words.codes  # in as few bytes as they fit into
    file[f"labels/{name}/categories"] = np.char.encode(np.array(words, np.str_), "utf-8")


def read_key(path: Path) -> str | None:
    """What a shard was made from; None if there is none, or it is damaged."""
    try:
        with h5py.File(path) as file:
            return get_key(file)
    except (OSError, RuntimeError, ValueError):  # none there, or cut short
        return None


def check_shards(manifest: Manifest, *, full: bool) -> None:
    """Compare the shards' sizes and headers with the manifest, and with `full` every byte.

    Of a local copy, those that are there: each was compared as a whole when it came.

    Raises
    ------
    ManifestError
        If a shard is of another run, or damaged.
    """
    is_copy = manifest.directory.bucket.exists()
    manifest.check_files(manifest.directory.shards, full=full and is_copy)
    if is_copy:
        return
    name, first = manifest.directory.manifest.name, 0
    n_cells, n_genes = sum(manifest.n_cells.values()), manifest.genes.n_chosen
    with Progress("verify", "shards", len(manifest.shards)) as progress:
        for path, entry in zip(manifest.shards, manifest.shard_entries, strict=True):
            key = stamp(manifest.shards_key, manifest.shard_format)
            wanted = (key, (min(manifest.shard_size, n_cells - first), n_genes))
            first += manifest.shard_size
            if full:  # before the library reads a byte of it
                manifest.check_file(entry, full=True)
            with explain_damage(path), h5py.File(path) as file:
                found = (get_key(file), _measure(file))
            if found != wanted:
                raise ManifestError(
                    f"{path} is of another run: it has key and shape {found}, {name} says "
                    f"{wanted}: delete it and {name}, and prepare again; what is whole stays"
                )
            progress.add()


def _measure(file: h5py.File) -> tuple[int, int] | None:
    """Cells and genes of a shard; None if its counts cannot be mapped as they lie."""
    if "packed" not in file:
        return file["expression"].shape if _is_mapped(file["expression"], np.int16) else None
    starts, packed = file["starts"], file["packed"]
    is_mapped = _is_mapped(packed, np.uint8) and _is_mapped(starts, np.uint32, np.uint64)
    if not is_mapped or len(starts) < 1 or starts[-1] != len(packed):
        return None
    return len(starts) - 1, len(file["gene_ids"])


def _is_mapped(dataset: h5py.Dataset, *types: type[np.generic]) -> bool:
    is_whole = not dataset.size or dataset.id.get_offset() is not None
    return is_whole and any(dataset.dtype == allowed for allowed in types)
