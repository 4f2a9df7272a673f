"""Files that a process of its own brings, as those who read them see it."""

import json
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from scdiff_data.errors import DownloadError, ManifestError
from scdiff_data.fetching.downloads import LocalDiskError
from scdiff_data.fetching.shared_folder import RemoteFile
from scdiff_data.telling import Progress

_N_THREADS = 4
"""Files fetched at a time, by each process that reads."""

_SECONDS_BETWEEN_LOOKS = 0.005
"""While a file is waited for."""

_PATIENCE = 0.5
"""Seconds of waiting that nobody is told of."""

_MOST_ENDED = 5
"""Processes that may be killed while a file is waited for."""

_COMMAND = "from scdiff_data.fetching.fetch_process import main; main()"
"""What the process runs."""

_plans = count()
"""Numbers of plans."""


class FileFetcher:
    """Brings files of one place on the net to one folder, ahead of their use.

    The process that fetches is started when a file is first wanted. It ends with this one, or when
    nobody holds this object.

    Parameters
    ----------
    url
        Where they come from, see `connect`.
    index
        The object that says which files there are.
    files
        The files.
    folder, aside, limit
        As `SharedFolder`.
    """

    def __init__(
        self,
        url: str,
        index: RemoteFile,
        files: Sequence[RemoteFile],
        *,
        folder: Path,
        aside: Path,
        limit: int | None,
    ) -> None:
        self.files = files
        self._url, self._folder, self._aside = url, folder, aside
        self._settings = {
            "url": url,
            "index": index,
            "files": files,
            "folder": str(folder),
            "aside": str(aside),
            "limit": limit,
            "n_threads": _N_THREADS,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._turn, self._heard, self._n_ended = 0, b"", 0
        self._waits: list[list[int]] = []  # of one that is waited for amid others, two
        self._open_plans: dict[int, list[list[int]]] = {}

    def is_here(self, number: int) -> bool:
        """Whether a file is in the folder."""
        return (self._folder / self.files[number].name).exists()

    def bring(self, numbers: Sequence[int]) -> Iterator[int]:
        """These files, each as soon as it is in the folder; waits for them.

        Raises
        ------
        DownloadError
            If one cannot be fetched, though it was tried again for a minute or so.
        ManifestError
            If the place no longer holds it.
        OSError
            If it cannot be written.
        """
        missing = []
        for number in numbers:
            if self.is_here(number):
                yield number
            else:
                missing.append(number)
        if missing:
            self._waits.append(missing)
            self._ask()
            try:
                yield from self._wait(missing)
            finally:
                self._waits = [others for others in self._waits if others is not missing]
                if self._process is not None and self._process.poll() is None:
                    self._ask()

    def _wait(self, missing: list[int]) -> Iterator[int]:
        """These files, each as it comes; takes them off the list."""
        since, progress = time.monotonic(), None
        self._n_ended = 0
        with ExitStack() as shown:
            while missing:
                if arrived := [number for number in missing if self.is_here(number)]:
                    for number in arrived:
                        missing.remove(number)
                        if progress is not None:
                            progress.add(self.files[number].size)
                        yield number
                    continue
                self._look_for_failure(missing)
                # A worker's bar would stand among those of the process that trains.
                is_long = time.monotonic() > since + _PATIENCE and parent_process() is None
                if progress is None and is_long:
                    n_bytes = sum(self.files[n].size for n in missing)
                    progress = shown.enter_context(Progress("fetch", "B", n_bytes))
                    progress.note(f"the next batch waits for {self.files[missing[0]].name}")
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def follow(self, stretches: Iterator[list[int]], n_ahead: int) -> "Plan":
        """A plan of what will be needed, which is fetched in its order while it is carried out."""
        return Plan(self, stretches, n_ahead)

    def _send(self, message: dict[str, Any]) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        self._write(message)

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone: who waits looks after it
            self._process.stdin.write(f"{json.dumps(message)}\n".encode())
            self._process.stdin.flush()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))},
            start_new_session=True,  # Ctrl-C is for who trains
        )
        weakref.finalize(self, _stop, self._process, os.getpid())
        self._heard = b""
        self._write(self._settings | {"parent": os.getpid()})
        for plan, stretches in self._open_plans.items():
            self._write({"plan": plan, "stretches": stretches, "over": 0})

    def _look_for_failure(self, missing: Sequence[int]) -> None:
        """Raise what the process says, and start another one if it is gone."""
        assert self._process is not None
        assert self._process.stdout is not None
        stream = self._process.stdout.fileno()
        while select.select([stream], [], [], 0)[0]:
            heard = os.read(stream, 1 << 16)
            if not heard:
                code = self._process.wait()
                self._n_ended += 1
                if code > 0 or self._n_ended >= _MOST_ENDED:  # it raised: another one would, too
                    raise DownloadError(
                        f"the process that fetches {self._url} ended with {code}: what it wrote "
                        "before says why"
                    )
                self._ask()
                return
            *lines, self._heard = (self._heard + heard).split(b"\n")
            for answer in map(json.loads, lines):
                if answer["turn"] == self._turn and answer["file"] in missing:
                    raise self._explain(answer)

    def _ask(self) -> None:
        """Say what is waited for; what was said of it before no longer counts."""
        self._turn += 1
        asked = [number for missing in reversed(self._waits) for number in missing]
        self._send({"ask": asked, "turn": self._turn})

    def _explain(self, answer: dict[str, Any]) -> Exception:
        kind, message = answer["kind"], answer["message"]
        if kind == "gone":
            return ManifestError(message)
        if kind == "ValueError":
            return ValueError(message)
        if kind == "disk":
            return LocalDiskError(
                answer["errno"],
                f"{message}: free some space, set local_limit to fewer bytes, or data_dir to a "
                f"larger disk that can be written; {self._url} is fetched to {self._folder}",
            )
        return DownloadError(message)

    def open_plan(self, plan: int) -> None:
        """Begin a plan."""
        self._open_plans[plan] = []

    def extend_plan(self, plan: int, stretches: list[list[int]], n_over: int) -> None:
        """Add stretches to a plan of which so many are over by now."""
        self._open_plans[plan] = [*self._open_plans[plan], *stretches][n_over:]
        self._send({"plan": plan, "stretches": stretches, "over": n_over})

    def close_plan(self, plan: int) -> None:
        """End a plan."""
        del self._open_plans[plan]
        if self._process is not None and self._process.poll() is None:
            self._send({"plan": plan, "stretches": None})


class Plan:
    """What will be needed, a stretch after another, made by `FileFetcher.follow`."""

    def __init__(self, fetcher: FileFetcher, stretches: Iterator[list[int]], n_ahead: int) -> None:
        self._fetcher, self._stretches, self._n_ahead = fetcher, stretches, n_ahead
        self._number = next(_plans)

    def __enter__(self) -> "Plan":
        self._fetcher.open_plan(self._number)
        self._extend(self._n_ahead, n_over=0)
        return self

    def __exit__(self, *error: object) -> None:
        self._fetcher.close_plan(self._number)

    def go_on(self) -> None:
        """The first stretch is over."""
        self._extend(1, n_over=1)

    def _extend(self, n: int, *, n_over: int) -> None:
        coming = [stretch for _, stretch in zip(range(n), self._stretches, strict=False)]
        self._fetcher.extend_plan(self._number, coming, n_over)


def _stop(process: "subprocess.Popen[bytes]", parent: int) -> None:
    """End the process, in the middle of a range; one that was forked meanwhile leaves it alone."""
    if os.getpid() != parent:
        return
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
    process.wait()
