"""The two ways in which shards hold counts, and which of them a data set gets.

`dense`     expression   int16 [n_cells, n_genes]: what h5py and old scripts read as they are
`compact`   starts, packed: only the counts above 0, a sixth of the bytes at one in six

Both hold the same counts, and whatever else a shard has is the same, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np

from scdiff_data.base import explain_damage, read_attribute
from scdiff_data.errors import ManifestError
from scdiff_data.shuffle import most_row_bytes

ShardFormat = Literal["dense", "compact"]
"""How shards hold counts."""

SHARD_FORMATS: tuple[str, ...] = (*get_args(ShardFormat), "auto")
"""What can be asked for."""

MOST_DENSE_BYTES = 8 << 30
"""With `auto`, dense counts of fewer bytes stay dense: they fit into most machines' memory."""

MOST_EXPRESSED = 0.2
"""With `auto`, counts of which more than this fraction is above 0 stay dense: up to here, unpacking
a row takes no longer than copying it."""

_ASSUMED_EXPRESSED = 1 / 6
"""Fraction of the chosen counts above 0; measured for 2,000 HVGs of scBaseCount, taken for any data
until they are known."""


def choose_format(
    shard_format: str, *, n_cells: int, n_genes: int, n_values: int | None = None
) -> ShardFormat:
    """The format that a data set gets: of `auto`, what its counts decide, on every machine alike.

    Parameters
    ----------
    shard_format
        `dense`, `compact` or `auto`.
    n_cells, n_genes
        Cells, and genes of each in the shards.
    n_values
        Counts above 0 of these genes in all cells, before `fallback_min_genes` fills places; while
        they are not known, None counts as one in six.
    """
    if shard_format != "auto":
        return "dense" if shard_format == "dense" else "compact"
    n_counts = n_cells * n_genes
    is_small = 2 * n_counts < MOST_DENSE_BYTES
    n_values = int(n_counts * _ASSUMED_EXPRESSED) if n_values is None else n_values
    return "dense" if is_small or n_values > MOST_EXPRESSED * n_counts else "compact"


def count_bytes(
    shard_format: ShardFormat, *, n_cells: int, n_genes: int, n_values: int | None = None
) -> int:
    """Bytes of the counts of all shards together; of compact ones about, within a tenth."""
    if shard_format == "dense":
        return 2 * n_cells * n_genes
    values = n_cells * n_genes * _ASSUMED_EXPRESSED if n_values is None else n_values
    return int(2 * values) + 4 * n_cells


def choose_starts_type(shard_size: int, n_genes: int) -> type[np.uint32 | np.uint64]:
    """What says where packed rows start: long enough for a full shard of the longest rows."""
    return np.uint32 if shard_size * most_row_bytes(n_genes) < 2**32 else np.uint64


@contextmanager
def open_shard(path: Path, key: str) -> Iterator[h5py.File]:
    """A shard to read, if it is that of `key`, see `stamp`.

    Raises
    ------
    ManifestError
        If there is another one or none, since another run replaced it; or if it is damaged.
    """
    try:
        with explain_damage(path), h5py.File(path) as file:
            check_key(path, get_key(file), key)
            yield file
    except FileNotFoundError as error:
        raise ManifestError.replaced(path) from error


def set_key(file: h5py.File, key: str) -> None:
    """Write a shard's attribute `key`.

    Of fixed length, as all texts of a shard: those of variable length lie in a heap, in which the
    library would search for ever if it were damaged.
    """
    file.attrs["key"] = np.bytes_(key)


def get_key(file: h5py.File) -> str | None:
    """A shard's attribute `key`."""
    return read_attribute(file, "key")


def check_key(path: Path, found: Any, key: str) -> None:
    """Raise ManifestError if a shard's key is not the one of the data set that was opened."""
    if found != key:
        raise ManifestError.replaced(path)


def stamp(shards_key: str, shard_format: str) -> str:
    """What a shard's attribute `key` is: of the counts, and of how they lie."""
    return shards_key if shard_format == "dense" else f"{shards_key}:{shard_format}"
