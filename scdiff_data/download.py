"""Remote file to verified local file.

A file is fetched in ranges into `NAME.part`, so a kill costs at most the range in flight; its size
and MD5 are checked before it takes its name. Errors that may pass are retried with growing,
jittered pauses; errors that will not are reported at once, with what to do.
"""

import logging
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scdiff_data.errors import DownloadError
from scdiff_data.files import hash_file

logger = logging.getLogger(__name__)

RANGE_BYTES = 8 << 20
N_ATTEMPTS = 6
_ADVICE = {
    400: "if the bucket is requester-pays, name who pays with source.storage_options="
    "{token: ..., requester_pays: PROJECT}: that project is billed for every byte",
    401: "name credentials with source.storage_options={token: ...}",
    403: "the bucket does not allow this reader: name credentials with "
    "source.storage_options={token: ...}, or check source.url",
    404: "the catalog lists it, but it is gone upstream: refresh_catalog=true takes a new catalog",
}


def download(
    file_system: Any,
    remote: str,
    local: Path,
    *,
    size: int | None,
    md5: str | None,
    cancelled: threading.Event,
    report_bytes: Callable[[int], object] = lambda _: None,
) -> Path:
    """Fetch `remote` to `local`, going on from a `.part` that an earlier run left; returns `local`.

    Parameters
    ----------
    file_system
        An fsspec file system.
    remote, local
        The path in it, and where the file goes.
    size, md5
        What the catalog promises, in bytes and hex; None where it promises nothing.
    cancelled
        Checked before every range and pause; once set, CancelledError ends the download.
    report_bytes
        Called with the bytes of each range that came in.

    Raises
    ------
    DownloadError
        If the file is missing, forbidden, not what the catalog promised, or if the server went on
        failing.
    """
    if local.exists() and local.stat().st_size == size:
        return local
    part = local.with_name(local.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        if cancelled.is_set():
            raise CancelledError
        at = part.stat().st_size if part.exists() else 0
        try:
            end = file_system.info(remote)["size"] if size is None else size
            _fetch_ranges(file_system, remote, part, end, cancelled, report_bytes)
            _verify(part, remote, end, md5)
            part.replace(local)
            return local
        except (CancelledError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - every fsspec file system raises its own types
            gained = part.exists() and part.stat().st_size > at
            failures = 1 if gained else failures + 1
            _give_up_if_permanent(error, remote, failures)
            pause = min(60.0, 0.5 * 2**failures) * random.uniform(0.5, 1.0)
            logger.info("%s: %s; trying again in %.1f s", remote, error, pause)
            cancelled.wait(pause)


class CancelledError(Exception):
    """The run was stopped; what has been fetched stays in the `.part`."""


def _fetch_ranges(
    file_system: Any,
    remote: str,
    part: Path,
    size: int,
    cancelled: threading.Event,
    report_bytes: Callable[[int], object],
) -> None:
    with part.open("ab") as file:
        at = file.tell()
        if at > size:
            file.truncate(0)
            at = 0
        while at < size:
            if cancelled.is_set():
                raise CancelledError
            block = file_system.cat_file(remote, start=at, end=min(at + RANGE_BYTES, size))
            if not block:
                raise OSError(f"the server sent nothing at byte {at} of {size}")
            file.write(block)
            file.flush()
            at += len(block)
            report_bytes(len(block))
        os.fsync(file.fileno())


def _verify(part: Path, remote: str, size: int, md5: str | None) -> None:
    """Compare with the catalog; a file that differs is deleted, so that a retry starts afresh."""
    found_size = part.stat().st_size
    found_md5 = hash_file(part, "md5") if md5 else None
    if found_size != size or found_md5 != md5:
        part.unlink()
        raise _MismatchError(
            f"{remote} has {found_size} bytes and MD5 {found_md5}, the catalog says {size} and "
            f"{md5}: it was damaged on the way or replaced upstream (refresh_catalog=true takes a "
            "new catalog)"
        )


class _MismatchError(Exception):
    """The bytes are not those that the catalog promised."""


def _give_up_if_permanent(error: Exception, remote: str, failures: int) -> None:
    if isinstance(error, _MismatchError):
        if failures >= 2:
            raise DownloadError(str(error), permanent=True) from error
        return
    status = _http_status(error)
    if status in _ADVICE:
        message = f"cannot fetch {remote}: {error} ({_ADVICE[status]})"
        raise DownloadError(message, permanent=status == 404) from error
    if failures >= N_ATTEMPTS:
        raise DownloadError(
            f"cannot fetch {remote}: {failures} attempts in a row failed, the last with: {error}; "
            "once the server answers, the same command goes on from here"
        ) from error


def _http_status(error: Exception) -> int:
    """The HTTP status behind an error of any fsspec file system, or 0."""
    if isinstance(error, FileNotFoundError):
        return 404
    # gcsfs tells some refusals by their text alone.
    if isinstance(error, PermissionError) or str(error).startswith("Forbidden"):
        return 403
    if "requester pays" in str(error).lower():
        return 400
    code = str(getattr(error, "code", getattr(error, "status", "")))
    return int(code) if code.isdecimal() else 0
