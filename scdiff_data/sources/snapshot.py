"""The catalog on disk.

The catalog is snapshotted into the data directory at the first run, because upstream changes its
files in place; from then on the draw depends on the snapshot alone. Its ids become files' names and
its paths are opened, so both are looked at whenever it is taken or read.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scdiff_data.base import digest, find_first, write_parquet
from scdiff_data.errors import ManifestError
from scdiff_data.sources.rows import (
    CATALOG_COLUMNS,
    PIECE_ROWS,
    choose_rows,
    keep_aside,
    read_aside,
)
from scdiff_data.sources.source import Bucket, Source
from scdiff_data.telling import Progress

logger = logging.getLogger(__name__)

_SAFE_ID = r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\z"
"""What an experiment may be called: its id becomes a file's name."""

_GROUP_ROWS = 1 << 16
"""Rows of a row group of the snapshot: of more, one stands in memory while it is written."""

_LEADS_OUT = r"\A(/|\z)|\x00|(\A|/)\.\.(/|\z)"
"""What a path has that names no file below the source's root."""


def read_snapshot(path: Path, source: Source) -> pa.Table | None:
    """Read the snapshot at `path`; None if there is none of this source.

    Raises
    ------
    ManifestError
        If it is damaged, or was changed into what `take_snapshot` would have left out.
    """
    if not path.exists():
        return None
    return read_stored(path, key=_key(source))


def read_stored(path: Path, *, key: bytes | None = None) -> Any:
    """The catalog at `path`, whose rows are looked at again; None if it is not the key's.

    Raises
    ------
    ManifestError
        As `read_snapshot`.
    """
    way_out = "delete it, or set refresh_catalog=true, which takes a new one"
    try:
        table = read_aside(path)
        if key is not None and (table.schema.metadata or {}).get(b"source") != key:
            return None
        are_usable = _find_usable(table)
    except (KeyError, ManifestError) as error:
        found = error.__cause__ or error
        raise ManifestError(f"{path} is damaged ({found}): {way_out}") from error
    if not are_usable.all():
        bad = table.slice(int(are_usable.argmin()), 1).to_pylist()[0]
        raise ManifestError(
            f"{path} is damaged: its experiment {bad['experiment_id']!r}, of the file "
            f"{bad.get('path')!r}, is repeated, or could name a file outside of the data: {way_out}"
        )
    return table


def take_snapshot(path: Path, source: Source, bucket: Bucket) -> pa.Table:
    """Read the source's catalog and keep it at `path`.

    Rows whose id could not name a file, or repeats, or whose path leads out of the source, are left
    out and logged: ids and paths are untrusted.

    Raises
    ------
    ValueError
        If a column is missing, or `n_cells` or `size` holds no such numbers.
    """
    with bucket.explain_refusals(), Progress("catalog"):
        found = source.read_catalog(bucket)
        batches = found.to_reader(PIECE_ROWS) if isinstance(found, pa.Table) else found
        table = keep_aside(batches, batches.schema, path.parent)
    _check_columns(table, type(source).__name__)
    keep = _find_usable(table)
    if not keep.all():
        logger.warning(
            "left out %d experiments whose id is missing, repeated or unsafe as a file name, or "
            "whose path leads out of the source, such as %r",
            int((~keep).sum()),
            table["experiment_id"][int(keep.argmin())].as_py(),
        )
    table = choose_rows(table, keep, path.parent)
    table = table.replace_schema_metadata({b"source": _key(source)})
    write_parquet(path, table, n_rows_each=_GROUP_ROWS)
    return table


def _check_columns(table: pa.Table, source: str) -> None:
    found = f"{source}.read_catalog gave a table"
    if missing := [name for name in CATALOG_COLUMNS if name not in table.column_names]:
        raise ValueError(
            f"{found} without {', '.join(missing)}, with {', '.join(table.column_names)}: give all "
            f"of {', '.join(CATALOG_COLUMNS)}"
        )
    for name in ("n_cells", "size"):
        kind = table[name].type
        if not pa.types.is_integer(kind) and (name == "n_cells" or not pa.types.is_null(kind)):
            raise ValueError(f"{found} whose {name} is {kind}: give whole numbers")
    bad = pc.fill_null(pc.less(table["n_cells"], 0), fill_value=True)
    if (row := pc.index(bad, value=True).as_py()) >= 0:
        (first,) = table.slice(row, 1).to_pylist()
        raise ValueError(
            f"{found} in which {first['experiment_id']!r} has n_cells={first['n_cells']}: give the "
            "cells in its file, or leave it out"
        )


def _find_usable(table: pa.Table) -> NDArray[np.bool_]:
    """Whether each row's id can name a file, for the first time, and its path stays in a folder."""
    ids = _read_texts(table["experiment_id"])
    is_usable = _find_matches(ids, _SAFE_ID) & find_first(ids)
    if "path" in table.column_names:
        is_usable &= ~_find_matches(_read_texts(table["path"]), _LEADS_OUT)
    return is_usable


def _read_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of texts; one of no text, and what is no text, is empty."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return pa.chunked_array([pa.repeat("", len(column))])
    return (
        column
        if column.type == kind and not column.null_count
        else pc.fill_null(column.cast(kind), "")
    )


def _find_matches(texts: pa.ChunkedArray, pattern: str) -> NDArray[np.bool_]:
    found = pc.match_substring_regex(texts, pattern)
    return np.asarray(found.to_numpy(zero_copy_only=False), bool)


def _key(source: Source) -> bytes:
    return digest([CATALOG_COLUMNS, source.settings()]).encode()
