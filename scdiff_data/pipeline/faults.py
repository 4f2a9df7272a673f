"""What is said of a disk that is full, fails or cannot be written, and of Ctrl-C."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_NOT_WRITABLE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST),
    errno.ELOOP,  # a link is at the place of a file that we write
)
"""Errors of a folder that cannot be written in."""

_DISK_FAILED = (errno.EIO, errno.ENXIO, errno.ESTALE, errno.EFBIG, errno.ENODEV, errno.EREMOTEIO)
"""What a disk, or the server of a shared one, answers when it is out of order."""


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
