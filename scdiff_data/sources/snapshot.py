"""The catalog on disk.

The catalog is snapshotted into the data directory at the first run, because upstream changes its
files in place; from then on the draw depends on the snapshot alone. Its ids become files' names and
its paths are opened, so both are looked at whenever it is taken or read.
"""

import logging
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from scdiff_data.base import digest, read_parquet, write_parquet
from scdiff_data.errors import ManifestError
from scdiff_data.sources.catalog import CATALOG_COLUMNS
from scdiff_data.sources.source import Bucket, Source
from scdiff_data.telling import Progress

logger = logging.getLogger(__name__)

_SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
"""What an experiment may be called: its id becomes a file's name."""


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
        table = read_parquet(path)
        if key is not None and (table.schema.metadata or {}).get(b"source") != key:
            return None
        are_usable = _find_usable(table)
    except (KeyError, ManifestError) as error:
        found = error.__cause__ or error
        raise ManifestError(f"{path} is damaged ({found}): {way_out}") from error
    if not all(are_usable):
        bad = table.slice(are_usable.index(False), 1).to_pylist()[0]
        raise ManifestError(
            f"{path} is damaged: its experiment {bad['experiment_id']!r}, of the file "
            f"{bad.get('path')!r}, is repeated, or could name a file outside of the data: {way_out}"
        )
    return table


def take_snapshot(path: Path, source: Source, bucket: Bucket) -> pa.Table:
    """Read the source's catalog and keep it at `path`.

    Rows whose id could not name a file, or repeats, or whose path leads out of the source, are left
    out and logged: ids and paths are untrusted.
    """
    with bucket.explain_refusals(), Progress("catalog"):
        table = source.read_catalog(bucket)
    keep = _find_usable(table)
    if not all(keep):
        logger.warning(
            "left out %d experiments whose id is missing, repeated or unsafe as a file name, or "
            "whose path leads out of the source, such as %r",
            keep.count(False),
            table["experiment_id"][keep.index(False)].as_py(),
        )
    table = table.filter(pa.array(keep)).replace_schema_metadata({b"source": _key(source)})
    write_parquet(path, table)
    return table


def _find_usable(table: pa.Table) -> list[bool]:
    """Whether each row's id can name a file, for the first time, and its path stays in a folder."""
    ids, seen, usable = table["experiment_id"].to_pylist(), set(), []
    paths = table["path"].to_pylist() if "path" in table.column_names else ["-"] * len(ids)
    for name, path in zip(ids, paths, strict=True):
        is_safe = isinstance(name, str) and _SAFE_ID.fullmatch(name) and name not in seen
        is_inside = isinstance(path, str) and path[:1] not in ("", "/") and "\0" not in path
        usable.append(bool(is_safe and is_inside and ".." not in path.split("/")))
        seen.add(name)
    return usable


def _key(source: Source) -> bytes:
    return digest([CATALOG_COLUMNS, source.settings()]).encode()
