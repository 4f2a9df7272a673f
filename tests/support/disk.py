"""What comes from the disk, and what is made to."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_IO = Path("/proc/self/io")


def drop_from_cache(path: Path) -> None:
    """Let a file be read from the disk again; skips the test on a system that cannot."""
    if not _IO.exists() or not hasattr(os, "posix_fadvise"):
        pytest.skip("this system does not say what was read from the disk")
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def count_bytes_read() -> Iterator[Callable[[], int]]:
    """What this process has had read from the disk meanwhile; a folder in memory skips the test."""
    before = _read_from_disk()
    yield lambda: _read_from_disk() - before
    if _read_from_disk() == before:
        pytest.skip("this folder is in memory")


def _read_from_disk() -> int:
    lines = _IO.read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])
