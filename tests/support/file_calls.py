"""Breaks one chosen call that changes files: an error of the disk, or a kill just before it.

`file_calls.c` is loaded before the C library and stands before each call that changes a file:
opening to create or cut, writing, renaming, deleting, making folders and links, flushing. It counts
those below one folder, over all threads and processes. The call of a chosen number is not made: it
fails with an error, or its process is killed.
"""

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
"""What stands before the calls."""

FAULTS = {
    "kill": "kill",
    "ENOSPC": str(errno.ENOSPC),
    "EIO": str(errno.EIO),
    "EACCES": str(errno.EACCES),
    "lasting EIO": f"{errno.EIO}+",
}
"""What a call may be broken with, if it lasts all that follow, too; how the library is told."""


def find_compiler() -> str | None:
    """The C compiler, if there is one."""
    return shutil.which("cc")


def compile_library(folder: Path) -> Path:
    """Compile what stands before the calls into a folder; give it to processes as LD_PRELOAD."""
    library = folder / "file_calls.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def tell(
    under: Path, counter: Path, *, at: int = 0, fault: str = "kill", log: Path | None = None
) -> Mapping[str, str]:
    """The environment in which calls are counted and one is broken; the count begins at 0.

    Parameters
    ----------
    under
        The folder whose files count.
    counter
        A file outside it, which is made anew.
    at
        The number of the call to break, from 1 on; 0 breaks none.
    fault
        One of `FAULTS`.
    log
        Where each call is written down: its number, name and path.
    """
    counter.write_bytes(bytes(8))
    told = {
        "FILE_CALLS_UNDER": str(under.resolve()),
        "FILE_CALLS_COUNTER": str(counter),
        "FILE_CALLS_AT": str(at),
        "FILE_CALLS_DO": FAULTS[fault],
    }
    return told if log is None else told | {"FILE_CALLS_LOG": str(log)}


def read_count(counter: Path) -> int:
    """Calls that were counted so far."""
    return int.from_bytes(counter.read_bytes(), "little")


def arm() -> None:
    """Read the environment again: in a process that was forked from one with the library."""
    library = ctypes.CDLL(None)
    if hasattr(library, "file_calls_arm"):
        for name in ("UNDER", "COUNTER", "AT", "DO", "LOG"):  # C reads its own copy
            if (value := os.environ.get(f"FILE_CALLS_{name}")) is not None:
                os.putenv(f"FILE_CALLS_{name}", value)
        library.file_calls_arm()
