"""Files that appear whole or not at all, and digests that name what is in them.

No file is written through a symbolic link at its own name: whoever put it there would choose what
is written over. (Links among the folders above it are the user's.)
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from scdiff_data.base.hashing import digest, hash_file
from scdiff_data.errors import ManifestError

_SEAL = "checksum"
"""Of a sealed JSON object, the name of its checksum."""

_HAS_SEAL = "has_checksum"
"""What says that there is one: older objects have neither, and one that lost it is damaged."""

_DAMAGE = (
    *(OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError),
    pa.ArrowException,
)
"""What is raised over a file of ours whose bytes are not those that were written."""


@contextmanager
def write_aside(path: Path, *, flushes: bool = True) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success, flush it to disk and rename it to `path`.

    A kill at any moment leaves either the old file or the new one. The `.tmp` left behind by a kill
    is replaced by the next attempt.

    Parameters
    ----------
    path
        The file.
    flushes
        Whether this waits for the disk. If not, whoever vouches for the file calls `flush_file`
        first: until then a power cut may leave another content under its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    create_file(aside).close()
    try:
        yield aside
        if flushes:
            _flush(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    if flushes:
        flush_folder(path.parent)


def create_file(path: Path) -> BinaryIO:
    """A new, empty file, open for writing; what is there is replaced, a link by the file itself."""
    path.unlink(missing_ok=True)
    return path.open("xb")  # which follows no link, and takes no file that somebody else made


def open_in_place(path: Path, *, append: bool = False) -> BinaryIO:
    """A file open for reading and writing, made if it is missing; its own name may be no link.

    Parameters
    ----------
    path
        The file.
    append
        Whether all that is written goes to its end.

    Raises
    ------
    OSError
        If it is a link (ELOOP), or cannot be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags | (os.O_APPEND if append else 0), 0o666)
    return cast("BinaryIO", os.fdopen(descriptor, "r+b", buffering=0))


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Let whatever goes wrong while a file of ours is read be a ManifestError that names it.

    What is no fault of the file stays as it is: none is there, none may be read, too many are open.
    """
    try:
        yield
    except (FileNotFoundError, ManifestError):
        raise
    except _DAMAGE as error:
        if getattr(error, "errno", None):
            raise
        raise ManifestError.damaged(path, str(error)) from error


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all; keys keep their order."""
    with write_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with a checksum of what it says, which `read_sealed` compares."""
    plain = json.loads(json.dumps(content))
    plain.pop(_SEAL, None)
    plain[_HAS_SEAL] = True
    write_json(path, {**plain, _SEAL: digest(plain)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote, without the checksum; older files have none.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no JSON object, or one that was changed.
    """
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"it holds no JSON object but a {type(content).__name__}")
    seal = content.pop(_SEAL, None)
    is_sealed = seal is not None or _HAS_SEAL in content
    if is_sealed and seal != digest(content):
        raise ValueError("what it says does not match its checksum")
    content.pop(_HAS_SEAL, None)
    return content


def write_parquet(path: Path, table: pa.Table, *, n_rows_each: int | None = None) -> None:
    """Write `table` as a Parquet file, whole or not at all, in groups of so many rows."""
    with write_aside(path) as aside:
        how: Any = {"compression": "zstd", "write_page_checksum": True}
        pq.write_table(table, aside, row_group_size=n_rows_each, **how)


def read_parquet(path: Path) -> pa.Table:
    """Read what `write_parquet` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        If it is damaged.
    """
    with explain_damage(path):
        table = pq.read_table(path, page_checksum_verification=True)
        table.validate(full=True)  # else texts that are no UTF-8 fail whoever looks at them
        return table.select(table.column_names)  # which are texts, too


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


def find_change(entry: FileEntry, root: Path, *, by: str, full: bool) -> str | None:
    """How a file below `root` differs from its description; None if it does not.

    Parameters
    ----------
    entry
        What was written.
    root
        Where its path begins.
    by
        What described it, for the answer.
    full
        Whether every byte is read; else only the size is looked at.
    """
    path = root / entry.path
    try:  # another run may take it away between two looks
        if (size := path.stat().st_size) != entry.size:
            return f"has {size} bytes, {by} says {entry.size}"
        if full and hash_file(path) != entry.sha256:
            return f"has another checksum than {by} says, so bytes of it have changed"
    except FileNotFoundError:
        return "is missing"
    return None


def flush_file(path: Path) -> None:
    """Wait until a file and its name are on the disk."""
    _flush(path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make a rename durable: it lives in the folder's own blocks."""
    _flush(folder)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe_size(n_bytes: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.1f} {unit}" if unit != "B" else f"{n_bytes:.0f} B"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def describe_number(n: int, noun: str) -> str:
    """So many of what a noun says, whose plural has an s."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
