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
    except (KeyError, ManifestError, pa.ArrowException) as error:
        found = error.__cause__ or error
        raise ManifestError(f"{path} is damaged ({found}): {way_out}") from error
    if not are_usable.all():
        bad = table.slice(int(are_usable.argmin()), 1).to_pylist()[0]
        raise ManifestError(
            f"{path} is damaged: its experiment {bad['experiment_id']!r}, of the file "
            f"{bad.get('path')!r}, is repeated, could name a file outside of the data, or has no "
            f"number of cells: {way_out}"
        )
    return table


def take_snapshot(path: Path, source: Source, bucket: Bucket) -> pa.Table:
    """Read the source's catalog and keep it at `path`.

    Rows whose id could not name a file, or repeats, whose path leads out of the source, or whose
    number of cells is missing, are left out and logged: what upstream says is untrusted.

    Raises
    ------
    ValueError
        If it is no table, or lacks a column, or `n_cells` or `size` are no whole numbers.
    """
    with bucket.explain_refusals(), Progress("catalog"):
        found = source.read_catalog(bucket)
        batches = found.to_reader(PIECE_ROWS) if isinstance(found, pa.Table) else found
        if not isinstance(batches, pa.RecordBatchReader):
            raise ValueError(
                f"{type(source).__name__}.read_catalog gave a {type(found).__name__}: give a "
                "pyarrow Table, or a RecordBatchReader"
            )
        table = keep_aside(batches, batches.schema, path.parent)
    table = _take_numbers(table, type(source).__name__)
    keep = _find_usable(table)
    if not keep.all():
        logger.warning(
            "left out %d experiments whose id is missing, repeated or unsafe as a file name, whose "
            "path leads out of the source, or whose number of cells is missing, such as %r",
            int((~keep).sum()),
            table["experiment_id"][int(keep.argmin())].as_py(),
        )
    table = choose_rows(table, keep, path.parent)
    table = table.replace_schema_metadata({b"source": _key(source)})
    write_parquet(path, table, n_rows_each=_GROUP_ROWS)
    return table


def _take_numbers(table: pa.Table, source: str) -> pa.Table:
    """The table with whole numbers where they must be; a ValueError if they are none."""
    found, names = f"{source}.read_catalog gave a table", table.column_names
    if wrong := [name for name in CATALOG_COLUMNS if names.count(name) != 1]:
        raise ValueError(
            f"{found} that has not {', '.join(wrong)} once, but {', '.join(names)}: give each of "
            f"{', '.join(CATALOG_COLUMNS)}"
        )
    for name in ("n_cells", "size"):
        column = table[name]
        if column.type != pa.int64() and not (name == "size" and pa.types.is_null(column.type)):
            try:
                column = column.cast(pa.int64())
            except pa.ArrowException as error:
                raise ValueError(f"{found} whose {name} is no int64: {error}") from error
            table = table.set_column(names.index(name), name, column)
    return table


def _find_usable(table: pa.Table) -> NDArray[np.bool_]:
    """Whether an id can name a file, is the first, its path stays inside, its cells are known."""
    ids = _read_texts(table["experiment_id"])
    is_usable = _find_matches(ids, _SAFE_ID) & find_first(ids)
    if "path" in table.column_names:
        is_usable &= ~_find_matches(_read_texts(table["path"]), _LEADS_OUT)
    if "n_cells" in table.column_names:
        n_cells = table["n_cells"].cast(pa.int64(), safe=False)  # earlier snapshots have any type
        is_usable &= pc.fill_null(pc.greater_equal(n_cells, 0), fill_value=False).to_numpy()
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
