"""One try to do a task, in a worker: in a folder of its own, and whatever fails is told.

    data directory/making/
        run-a8f3…/             the run's, made by it and removed by it
            alive              while it goes on
            17-20-x1c9…/       an attempt at task 17: all that it writes
            17-31-9qz2…/       another attempt at it, elsewhere

Nothing that a worker writes is in its place yet: the run alone moves finished files there. So a
worker that was given up, and wakes up later, can write over nothing.
"""

import errno
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from scdiff_data.errors import DownloadError

_PACKAGE = "scdiff_data"
"""Whose log is handed on."""

ALIVE = "alive"
"""The file in a run's folder that says that the run goes on."""

_RUN = "run-"
"""What names of runs' folders begin with."""

REST_SECONDS = 3.0
"""That a worker rests after a failure: one that fails at once does not take all tasks from others.
"""

_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Errors of the disk that all workers share: another try fails, too."""


def begin_run(making: Path) -> Path:
    """A folder for a run, in one that all workers see."""
    while True:
        making.mkdir(exist_ok=True)
        # An attempt of an earlier run that ends right now removes the folder, if it is empty.
        with suppress(FileNotFoundError):
            folder = Path(mkdtemp(prefix=_RUN, dir=making)).absolute()
            (folder / ALIVE).touch()
            return folder


def remove_runs(making: Path) -> None:
    """Delete what runs left, and the folder if nothing else is in it."""
    with suppress(FileNotFoundError):  # an attempt that ends late has removed it meanwhile
        for run in making.glob(f"{_RUN}*"):
            shutil.rmtree(run, ignore_errors=True)
    with suppress(OSError):
        making.rmdir()


class Abandoned(threading.Event):
    """An event that is set once nobody waits for an attempt.

    Parameters
    ----------
    folder
        The attempt's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def is_set(self) -> bool:
        """Whether the folder is gone, or the run has ended."""
        return not (self._folder.exists() and (self._folder.parent / ALIVE).exists())


@dataclass(frozen=True)
class Attempt:
    """What came of a try.

    Parameters
    ----------
    worker
        Host and process.
    folder
        The name of its folder, empty where none could be made.
    value
        What the function gave.
    error
        What it raised; None if it did not.
    may_pass
        Whether the same may succeed at another time, or elsewhere.
    log
        Level, logger and text of what was logged.
    """

    worker: str
    folder: str = ""
    value: Any = None
    error: Exception | None = None
    may_pass: bool = False
    log: list[tuple[int, str, str]] = field(default_factory=list)


def attempt(
    function: Callable[[Any, Path], Any],
    job: Any,
    run: Path,
    number: int,
    nth: int,
    home: str,
    level: int,
) -> Attempt:
    """Do a task in a worker.

    Parameters
    ----------
    function, job
        What is done with it and with the attempt's folder.
    run
        The folder of the run.
    number
        The task's.
    nth
        Which of the run's attempts it is.
    home
        The process that waits for it, which hears its log anyway.
    level
        From which on the log is handed on.
    """
    worker = name_process()
    try:
        folder = Path(mkdtemp(prefix=f"{number}-{nth}-", dir=run))
    except OSError as error:
        told = FileNotFoundError(
            f"the worker {worker} cannot write in {run.parent} ({error}): every worker needs the "
            "data directory under the same path, as a shared file system has it; mount it there, "
            "or set data_dir to a folder that all of them see"
        )
        return Attempt(worker, error=told)
    with _keep_log(level, is_heard=worker == home) as log:
        try:
            value = function(job, folder)
            return Attempt(worker, folder.name, value, log=log)
        except Exception as error:  # noqa: BLE001 - told to who waits for it
            may_pass = _may_pass(error) or Abandoned(folder).is_set()
            shutil.rmtree(folder, ignore_errors=True)
            if may_pass:
                time.sleep(REST_SECONDS)
            return Attempt(worker, folder.name, error=error, may_pass=may_pass, log=log)
        finally:
            if not (run / ALIVE).exists():  # nothing is left of a run that has ended
                shutil.rmtree(run, ignore_errors=True)
                with suppress(OSError):
                    run.parent.rmdir()


def name_process() -> str:
    """Host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _may_pass(error: Exception) -> bool:
    if isinstance(error, DownloadError):
        return not error.permanent
    if isinstance(error, OSError):
        return error.errno not in _OF_DISK
    return isinstance(error, MemoryError)


class _Kept(logging.Handler):
    """Keeps what the thread that made it logs."""

    def __init__(self, level: int, log: list[tuple[int, str, str]]) -> None:
        super().__init__(level)
        self._log, self._thread = log, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._log.append((record.levelno, record.name, record.getMessage()))


@contextmanager
def _keep_log(level: int, *, is_heard: bool) -> Iterator[list[tuple[int, str, str]]]:
    """What this thread logs meanwhile, unless the process that waits hears it anyway."""
    log: list[tuple[int, str, str]] = []
    if is_heard:
        yield log
        return
    logger, handler = logging.getLogger(_PACKAGE), _Kept(level, log)
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield log
    finally:
        logger.removeHandler(handler)
