"""Remote file to verified local file.

A file is fetched in ranges into `NAME.part`, so a kill costs at most the ranges in flight; its size
and checksum are compared before it takes its name. Errors that may pass are retried with growing,
jittered pauses; errors that will not are reported at once, with what to do.

Nothing waits for the disk: a file lives until it is archived, mostly in the page cache alone. One
that an earlier run left is compared with its checksum again before it is used.
"""

import asyncio
import hashlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c

from scdiff_data.errors import DownloadError
from scdiff_data.fetching.refusals import Advice, http_status

logger = logging.getLogger(__name__)


RANGE_BYTES = 12 << 20
"""Bytes of a range. Larger ones take memory (two a thread are on their way), smaller ones more
requests."""

N_ATTEMPTS = 6
"""Failures in a row, without a byte gained, after which a download is given up."""

STALL_SECONDS = 300.0
"""A range that takes longer is asked for again."""

_OF_SOURCES = Advice()
"""What to do about a source's files."""


def download(
    file_system: Any,
    remote: str,
    local: Path,
    *,
    size: int | None,
    checksum: str | None,
    cancelled: threading.Event,
    report_bytes: Callable[[int], object] = lambda _: None,
    advice: Advice = _OF_SOURCES,
) -> Path:
    """Fetch `remote` to `local`, going on from a `.part` that an earlier run left; returns `local`.

    Parameters
    ----------
    file_system
        An fsspec file system.
    remote, local
        The path in it, and where the file goes.
    size, checksum
        What the catalog promises: bytes, and `md5:HEX`, `sha256:HEX` or `crc32c:HEX`; None where it
        promises nothing.
    cancelled
        Once set, CancelledError ends the download within a tenth of a second.
    report_bytes
        Called with the bytes of each range that came in.
    advice
        What to do about failures.

    Raises
    ------
    DownloadError
        If the file is missing, forbidden, not what the catalog promised, or if the server went on
        failing.
    LocalDiskError
        If the file cannot be written.
    """
    if is_whole(local, size, checksum):
        return local
    part = local.with_name(local.name + ".part")
    with _local_disk_errors(part):
        part.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        if cancelled.is_set():
            raise CancelledError
        at = part.stat().st_size if part.exists() else 0
        try:
            end = file_system.info(remote)["size"] if size is None else size
            found = _fetch_ranges(file_system, remote, part, end, checksum, cancelled, report_bytes)
            _verify(part, remote, end, checksum, found, advice)
            with _local_disk_errors(part):
                part.replace(local)
            return local
        except (CancelledError, LocalDiskError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - every fsspec file system raises its own types
            gained = part.exists() and part.stat().st_size > at
            failures = 1 if gained else failures + 1
            _give_up_if_permanent(error, remote, failures, advice)
            pause = min(60.0, 0.5 * 2**failures) * random.uniform(0.5, 1.0)
            logger.info("%s: %s; trying again in %.1f s", remote, error, pause)
            cancelled.wait(pause)


class CancelledError(Exception):
    """The run was stopped; what has been fetched stays in the `.part`."""


class LocalDiskError(OSError):
    """The disk that is written to is full, read-only, or has something in the way."""


def is_whole(local: Path, size: int | None, checksum: str | None) -> bool:
    """Whether an earlier run fetched the file; a link in its place leads to something else."""
    if local.is_symlink() or not local.exists() or local.stat().st_size != size:
        return False
    if checksum is None:
        return True
    return measure_checksum(local, checksum.split(":")[0]) == checksum


def measure_checksum(local: Path, kind: str) -> str:
    """A file's checksum as a catalog would promise it, `crc32c:HEX`, `md5:HEX` or `sha256:HEX`."""
    hasher = _Hasher(kind)
    with local.open("rb") as file:
        hasher.read(file)
    return hasher.checksum()


def _fetch_ranges(
    file_system: Any,
    remote: str,
    part: Path,
    size: int,
    checksum: str | None,
    cancelled: threading.Event,
    report_bytes: Callable[[int], object],
) -> str | None:
    """Append what is missing to the part; gives the checksum of the whole, of the kind promised."""
    hasher = None if checksum is None else _Hasher(checksum)
    with _open_part(part) as file:
        at = file.seek(0, os.SEEK_END)
        if at > size:
            at = file.truncate(0)
        if hasher is not None:
            hasher.read(file)
        # The next range is on its way while this one is hashed and written.
        ahead = _ask(file_system, remote, at, size) if at < size else None
        try:
            while ahead is not None:
                block = _wait(ahead, cancelled)
                if not block:
                    raise OSError(f"the server sent nothing at byte {at} of {size}")
                at += len(block)
                ahead = _ask(file_system, remote, at, size) if at < size else None
                if hasher is not None:
                    hasher.update(block)
                with _local_disk_errors(part):
                    file.write(block)
                    file.flush()
                report_bytes(len(block))
        finally:
            if ahead is not None:
                ahead.cancel()
        if hasher is None:  # without a checksum, a crash before this would go unnoticed
            with _local_disk_errors(part):
                os.fsync(file.fileno())
    return None if hasher is None else hasher.checksum()


class _Hasher:
    """MD5, SHA-256 or CRC32C, whichever a promised checksum names."""

    def __init__(self, checksum: str) -> None:
        self._kind = checksum.split(":")[0]
        self._hash: Any = (
            google_crc32c.Checksum()
            if self._kind == "crc32c"
            else hashlib.new(self._kind, usedforsecurity=False)
        )

    def update(self, block: bytes) -> None:
        self._hash.update(block)

    def read(self, file: BinaryIO) -> None:
        """Take in a file from its beginning to its end."""
        file.seek(0)
        while block := file.read(RANGE_BYTES):
            self.update(block)

    def checksum(self) -> str:
        return f"{self._kind}:{self._hash.digest().hex()}"


def _ask(file_system: Any, remote: str, at: int, size: int) -> "Future[bytes]":
    """Start to fetch the range that begins at byte `at`."""
    end = min(at + RANGE_BYTES, size)
    if getattr(file_system, "async_impl", False):
        coroutine = file_system._cat_file(remote, start=at, end=end)
        return asyncio.run_coroutine_threadsafe(coroutine, file_system.loop)
    future: Future[bytes] = Future()
    try:
        future.set_result(file_system.cat_file(remote, start=at, end=end))
    except Exception as error:  # noqa: BLE001 - raised where the result is asked for
        future.set_exception(error)
    return future


def _wait(future: "Future[bytes]", cancelled: threading.Event) -> bytes:
    deadline = time.monotonic() + STALL_SECONDS
    while not cancelled.is_set():
        done, _ = wait([future], timeout=0.1)
        if done:
            return future.result()
        if time.monotonic() > deadline:
            raise OSError(f"a range did not come in {STALL_SECONDS:.0f} s")
    raise CancelledError


@contextmanager
def _open_part(part: Path) -> Iterator[BinaryIO]:
    """Open for reading and appending, never through a symbolic link."""
    if part.is_symlink():
        raise LocalDiskError(
            f"{part} is a symbolic link: downloads are not written through links; remove it"
        )
    with _local_disk_errors(part):
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        file = os.fdopen(os.open(part, flags, 0o666), "r+b")
    with file:
        yield file


@contextmanager
def _local_disk_errors(path: Path) -> Iterator[None]:
    """Tell an error of this machine's disk from one of the server's: it is not tried again."""
    try:
        yield
    except OSError as error:
        raise LocalDiskError(error.errno, f"cannot write {path}: {error.strerror}") from error


def _verify(
    part: Path, remote: str, size: int, checksum: str | None, found: str | None, advice: Advice
) -> None:
    """Compare with the promise; a file that differs is deleted, so that a retry starts afresh."""
    found_size = part.stat().st_size
    if found_size != size or found != checksum:
        part.unlink()
        raise _MismatchError(
            f"{remote} has {found_size} bytes and checksum {found}, {advice.promiser} says {size} "
            f"and {checksum}: {advice.if_other}"
        )


class _MismatchError(Exception):
    """The bytes are not those that the catalog promised."""


def _give_up_if_permanent(error: Exception, remote: str, failures: int, advice: Advice) -> None:
    if isinstance(error, _MismatchError):
        if failures >= 2:
            raise DownloadError(str(error), permanent=True) from error
        return
    status = http_status(error)
    if status in advice.refusals:
        message = f"cannot fetch {remote}: {error} ({advice.refusals[status]})"
        raise DownloadError(message, permanent=status == 404) from error
    if failures >= N_ATTEMPTS:
        raise DownloadError(
            f"cannot fetch {remote}: {failures} attempts in a row failed, the last with: {error}; "
            "once the server answers, the same command goes on from here"
        ) from error
