"""From one format of shards to the other, exactly."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import h5py
import numpy as np

from scdiff_data.base import Workers, describe_file, write_aside
from scdiff_data.errors import ManifestError
from scdiff_data.shards.contents import (
    create_shard,
    read_key,
    write_dense,
    write_packed,
)
from scdiff_data.shards.formats import (
    ShardFormat,
    choose_starts_type,
    set_key,
    stamp,
)
from scdiff_data.shuffle import PackedRows, most_row_bytes, pack_rows
from scdiff_data.store import Manifest

_BLOCK_BYTES = 16 << 20
"""Bytes of dense counts packed at a time, in each thread."""

_COUNTS = ("expression", "starts", "packed")
"""Datasets that differ between the formats."""


def rewrite_shards(
    manifest: Manifest,
    shard_format: str,
    *,
    n_threads: int,
    report_cells: Callable[[int], object] = lambda _: None,
) -> Manifest:
    """Write all shards in a format, each in place of the old one; gives the manifest of it.

    A shard that an interrupted run wrote already stays. The caller marks the directory as
    unfinished before, and writes the manifest.

    Parameters
    ----------
    manifest
        Of the directory as it was finished last.
    shard_format
        How counts shall lie.
    n_threads
        Shards written at a time.
    report_cells
        Called with the number of cells of each finished shard.

    Raises
    ------
    ManifestError
        If a shard is of another run.
    """
    key = stamp(manifest.shards_key, shard_format)
    known = {stamp(manifest.shards_key, name) for name in get_args(ShardFormat)}
    starts_type = choose_starts_type(manifest.shard_size, manifest.genes.n_chosen)

    def rewrite(path: Path) -> None:
        if (found := read_key(path)) not in known:
            raise ManifestError(
                f"{path} is missing, damaged or of another run, which was cut off: call prepare("
                "recipe, data_dir) or run 'scdiff-data hvg', whichever it was, and convert after it"
            )
        with h5py.File(path) as old:
            n_cells = len(old["total_counts"])
            if found != key:
                with write_aside(path) as aside, create_shard(aside) as new:
                    set_key(new, key)
                    for name in old:
                        if name not in (*_COUNTS, "fallback"):
                            old.copy(name, new)
                    rows = _read_rows(old)
                    if shard_format == "dense":
                        write_dense(new, rows, manifest.genes.n_chosen)
                    else:
                        write_packed(new, rows, starts_type)
                    if "fallback" in old:
                        old.copy("fallback", new)
        report_cells(n_cells)

    with Workers(n_threads) as workers:
        workers.map(rewrite, manifest.shards)
        entries = workers.map(lambda path: describe_file(path, manifest.data_dir), manifest.shards)
    new = {entry.path: entry for entry in entries}
    return replace(
        manifest,
        recipe={**manifest.recipe, "shard_format": shard_format},
        shard_format=shard_format,
        files=tuple(new.get(entry.path, entry) for entry in manifest.files),
    )


def _read_rows(shard: h5py.File) -> PackedRows:
    """A shard's counts as packed rows."""
    if "packed" in shard:
        starts, packed = shard["starts"][:].astype(np.int64), shard["packed"][:]
    else:
        expression, ends, parts = shard["expression"], [np.zeros(1, np.int64)], []
        n_cells, n_genes = expression.shape
        n_block = max(1, _BLOCK_BYTES // (2 * n_genes))
        for first in range(0, n_cells, n_block):
            dense = expression[first : first + n_block]
            room = np.empty(len(dense) * most_row_bytes(n_genes), np.uint8)
            ends.append(np.empty(len(dense), np.int64))
            parts.append(room[: pack_rows(dense, room, ends[-1])].copy())
            ends[-1] += ends[-2][-1]
        starts, packed = np.concatenate(ends), np.concatenate(parts)
    return PackedRows(packed, starts[:-1], np.diff(starts), np.zeros(len(starts) - 1, np.int64))
