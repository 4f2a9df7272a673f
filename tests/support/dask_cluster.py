"""A Dask cluster of this machine: a scheduler and workers, each a process that a test may hurt."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.cases import ROOT, TESTS

_SETTINGS = {
    "DASK_DISTRIBUTED__WORKER__DAEMON": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "1h",
}
"""Of the scheduler and its workers."""


class DaskCluster:
    """A scheduler, and workers that are added one by one.

    Parameters
    ----------
    folder
        Where files of theirs go.
    patience
        After which a worker that is not heard is given up.
    """

    def __init__(self, folder: Path, patience: str) -> None:
        self._folder = folder
        self._environment = os.environ | _SETTINGS | {"DASK_TEMPORARY_DIRECTORY": str(folder)}
        self._environment["DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"] = patience
        self._environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{TESTS}"
        self._file = folder / "scheduler.json"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", self._file)
        while not self._file.exists() or not self._file.stat().st_size:
            time.sleep(0.05)

    @property
    def address(self) -> str:
        """The scheduler's."""
        return str(json.loads(self._file.read_text())["address"])

    def add(
        self, environment: Mapping[str, str] | None = None, before: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a worker, by way of another command if one is named."""
        return self._start(
            *("worker", "--scheduler-file", self._file, "--nthreads", "1", "--no-nanny"),
            "--no-dashboard",
            environment=environment,
            before=before,
        )

    def _start(
        self,
        kind: str,
        *arguments: str | Path,
        environment: Mapping[str, str] | None = None,
        before: tuple[str, ...] = (),
    ) -> subprocess.Popen[bytes]:
        number = len(self.processes)
        with (self._folder / f"{kind}_{number}.log").open("wb") as log:
            process = subprocess.Popen(
                [*before, sys.executable, "-m", "dask", kind, *map(str, arguments)],
                env=self._environment | dict(environment or {}),
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End all."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


def nap(seconds: float, folder: Path) -> int:
    """A task: write a file, and give the process."""
    (folder / "made").touch()
    time.sleep(seconds)
    return os.getpid()


def fail_once(marker: str, folder: Path) -> int:
    """A task whose first attempt fails."""
    if not Path(marker).exists():
        Path(marker).touch()
        raise OSError("by chance")
    return nap(0.0, folder)


@contextmanager
def dask_cluster(folder: Path, patience: str = "5 minutes") -> Iterator[DaskCluster]:
    """A scheduler without workers; leaving ends all that was started."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = DaskCluster(folder, patience)
    try:
        yield cluster
    finally:
        cluster.stop()
