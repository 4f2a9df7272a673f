"""Files that appear whole or not at all, and digests that name what is in them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scdiff_data.base.hashing import hash_file


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success, flush it to disk and rename it to `path`.

    A kill at any moment leaves either the old file or the new one. The `.tmp` left behind by a kill
    is overwritten by the next attempt.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.unlink(missing_ok=True)  # it might be a link to somewhere else
    try:
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    _flush_folder(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all; keys keep their order."""
    with write_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write `table` as a Parquet file, whole or not at all."""
    with write_aside(path) as aside:
        pq.write_table(table, aside, compression="zstd")


@dataclass(frozen=True)
class FileEntry:
    """What a file holds, so that damage is noticed.

    Parameters
    ----------
    path
        Below the root that it belongs to, with forward slashes.
    size
        Bytes.
    sha256
        Hex SHA-256 of them.
    """

    path: str
    size: int
    sha256: str


def describe_file(path: Path, root: Path) -> FileEntry:
    """Measure and hash a file below `root`."""
    return FileEntry(path.relative_to(root).as_posix(), path.stat().st_size, hash_file(path))


def _flush_folder(folder: Path) -> None:
    """Make a rename durable: it lives in the folder's own blocks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
