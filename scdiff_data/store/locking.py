"""Who writes in a data directory, one process at a time, and what is said where that fails.

The lock is the system's own (`flock`), which NFS and Lustre keep between nodes where they are set
up for it, and which a process that is killed gives back. A file system that keeps none gets a file
that stands for the lock: a killed process leaves it behind. One of the same machine is then seen to
be gone; one of another is not, so the message names the file.
"""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from scdiff_data.store.layout import DataDirectory
from scdiff_data.telling import Progress

logger = logging.getLogger(__name__)

_NOT_WRITABLE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST),
    errno.ELOOP,  # a link is at the place of a file that we write
)
"""Errors of a folder that cannot be written in."""

_DISK_FAILED = (errno.EIO, errno.ENXIO, errno.ESTALE, errno.EFBIG, errno.ENODEV, errno.EREMOTEIO)
"""What a disk, or the server of a shared one, answers when it is out of order."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system that keeps no locks answers."""

_HELD: set[Path] = set()
"""Locks that this process holds, whose directories no other one prepares."""


@contextmanager
def locked(directory: DataDirectory) -> Iterator[None]:
    """Hold the directory's lock, saying so while another process has it."""
    directory.path.mkdir(parents=True, exist_ok=True)
    lock: BaseFileLock = FileLock(directory.lock)
    try:
        is_held = _try(lock)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        lock = SoftFileLock(directory.lock_file)
        is_held = _try(lock)
    if not is_held:
        left_behind = ""
        if isinstance(lock, SoftFileLock):
            left_behind = f"; if none does, one was killed: delete {directory.lock_file}"
        logger.warning("another process prepares %s: waiting for it%s", directory.path, left_behind)
        with Progress("wait"):
            lock.acquire()
    _HELD.add(directory.lock)
    try:
        yield
    finally:
        _HELD.discard(directory.lock)
        lock.release()


def is_being_prepared(directory: DataDirectory) -> bool:
    """Whether another process holds the directory's lock, as far as can be seen."""
    if directory.lock in _HELD:
        return False
    if directory.lock_file.exists():
        return True
    if not directory.lock.exists():
        return False
    lock = FileLock(directory.lock)
    try:
        is_free = _try(lock)
        lock.release()
    except (OSError, NotImplementedError):  # may be read-only
        return False
    return not is_free


def _try(lock: BaseFileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


@contextmanager
def explain_faults(data_dir: Path) -> Iterator[None]:
    """Say what to do about a disk that is full or cannot be written, and about Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        logger.warning("stopped: the same command goes on from here")
        raise
    except (OSError, RuntimeError) as error:
        # HDF5 tells some of these by their text alone.
        code = getattr(error, "errno", None)
        if code in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise OSError(
                errno.ENOSPC,
                f"the disk of {data_dir} is full: free some space and run the same command, which "
                "goes on from here, or set data_dir to a larger disk",
            ) from error
        if code in _DISK_FAILED:
            raise OSError(
                code,
                f"the disk of {data_dir}, or one that is read, failed ({error}): look after it and "
                "run the same command, which goes on from here",
            ) from error
        if code in _NOT_WRITABLE:
            raise OSError(
                code,
                f"cannot write in {data_dir}, which holds no finished data of these settings "
                f"({error}): set data_dir to a folder that can be written",
            ) from error
        raise
