"""What runs in a process of its own: files are fetched ahead of whoever will read them.

A process, and no threads: the one that trains may fork its loaders' workers at any moment, and
keeps its core to itself. It is told what is wanted on stdin, a JSON object a line:

    {"ask": [4, 7], "turn": 3}                        somebody waits for these now
    {"plan": 1, "stretches": [[0, 4], …], "over": 2}  what comes next, see `Wanted`
    {"plan": 1, "stretches": null}                    that was all of this plan

A file that is there is there for all to see. Only of one that is waited for and cannot be had is
there a line on stdout. The process ends with the one that started it.
"""

import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from scdiff_data.errors import DownloadError
from scdiff_data.fetching.connecting import connect
from scdiff_data.fetching.downloads import download
from scdiff_data.fetching.refusals import OF_BUCKETS, check_reachable
from scdiff_data.fetching.shared_folder import RemoteFile, SharedFolder
from scdiff_data.fetching.wanted import Wanted

_SECONDS_BETWEEN_LOOKS = 0.05
"""While another process fetches what is wanted, or there is no room."""

_PATIENCE = 5.0
"""Seconds for which what is waited for waits in its turn, while others' files take the room."""


class _Fetching:
    """Threads that bring what is wanted.

    Parameters
    ----------
    settings
        What `Fetcher` of `fetcher.py` sends first.
    answers
        Where failures are told.
    """

    def __init__(self, settings: dict[str, Any], answers: TextIO) -> None:
        self._files = [RemoteFile(*file) for file in settings["files"]]
        self._url, self._index = settings["url"], RemoteFile(*settings["index"])
        folder, aside = Path(settings["folder"]), Path(settings["aside"])
        self._folder = SharedFolder(folder, aside, self._files, settings["limit"])
        self._is_limited = settings["limit"] is not None
        self._answers = answers
        self._wanted = Wanted()
        self._asked: set[int] = set()
        self._asked_at = 0.0
        self._turn = 0
        self._is_blocked = False
        self._changed = threading.Condition()
        self._busy: set[int] = set()
        self._here: set[int] = set()
        self._failed: set[int] = set()
        self._file_system: Any = None
        self._root = ""

    def start(self, n_threads: int) -> None:
        """Start the threads."""
        for _ in range(n_threads):
            threading.Thread(target=self._work, daemon=True).start()

    def hear(self, message: dict[str, Any]) -> None:
        """Take in what is wanted."""
        with self._changed:
            if "ask" in message:
                self._wanted.ask(message["ask"])
                self._asked, self._turn = set(message["ask"]), message["turn"]
                self._asked_at = time.monotonic()
                self._failed -= self._asked  # they are tried again
            elif message["stretches"] is None:
                self._wanted.close(message["plan"])
            else:
                self._wanted.extend(message["plan"], message["stretches"], n_over=message["over"])
            self._folder.note_use(self._wanted.in_use)
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            try:
                number = self._wait()
            except OSError as error:  # the folder's disk is full, gone, or keeps no locks
                for asked in tuple(self._asked):
                    self._tell(asked, error)
                threading.Event().wait(1.0)
                continue
            try:
                self._fetch(number)
            except Exception as error:  # noqa: BLE001 - whatever it is, who waits must be told
                self._tell(number, error)
            finally:
                with self._changed:
                    self._busy.discard(number)
                    self._folder.release(number)
                    self._changed.notify_all()

    def _wait(self) -> int:
        """The next file to fetch, once there is one."""
        with self._changed:
            while (number := self._take()) is None:
                self._changed.wait(_SECONDS_BETWEEN_LOOKS if self._is_blocked else None)
            return number

    def _take(self) -> int | None:
        """The next file to fetch, which nobody else fetches; None if there is none by now."""
        self._is_blocked = False
        seen = set()
        for number, kept in self._wanted.walk():
            if number in seen or number in self._busy or number in self._failed:
                continue
            seen.add(number)
            if self._is_here(number):
                continue
            if not self._folder.take(number):
                self._is_blocked = True
                continue
            if self._is_here(number):  # the other one has just put it there
                self._folder.release(number)
                continue
            kept |= self._busy  # whose bytes are the disk's until they are here
            is_urgent = number in self._asked and self._busy <= self._asked
            if not self._folder.make_room(
                number,
                kept,
                at_any_rate=is_urgent,
                is_patient=time.monotonic() < self._asked_at + _PATIENCE,
            ):
                self._folder.release(number)
                self._is_blocked = True
                return None
            self._busy.add(number)
            return number
        return None

    def _is_here(self, number: int) -> bool:
        is_known = number in self._here and number not in self._asked  # who asks does not see it
        if is_known and not self._is_limited:
            return True
        if self._folder.path(number).exists():
            self._here.add(number)
            return True
        return False

    def _fetch(self, number: int) -> None:
        with self._changed:
            if self._file_system is None:
                file_system, self._root = connect(self._url, {})
                check_reachable(str(getattr(file_system, "_location", self._url)))
                self._file_system = file_system
        file = self._files[number]
        download(
            self._file_system,
            f"{self._root}/{file.remote}",
            self._folder.path_aside(number),
            size=file.size,
            checksum=f"sha256:{file.sha256}",
            cancelled=threading.Event(),
            advice=OF_BUCKETS,
        )
        self._folder.put(number)

    def _tell(self, number: int, error: Exception) -> None:
        """Keep in mind that a file cannot be had, and tell it if somebody waits for it."""
        kind, message = type(error).__name__, str(error)
        cause = error.__cause__
        if isinstance(error, DownloadError) and isinstance(cause, FileNotFoundError):
            kind, message = "gone", self._explain_lack(number)
        elif isinstance(error, OSError):
            kind, message = "disk", message.removeprefix(f"[Errno {error.errno}] ")
        elif not isinstance(error, DownloadError | ValueError):
            message = f"{kind}: {message}"
        code = getattr(error, "errno", None)
        with self._changed:
            self._failed.add(number)
            if number in self._asked:
                answer = {"file": number, "kind": kind, "message": message, "errno": code}
                self._answers.write(json.dumps(answer | {"turn": self._turn}) + "\n")
                self._answers.flush()

    def _explain_lack(self, number: int) -> str:
        """Why an object is not there."""
        name = self._files[number].remote
        try:
            index = self._file_system.cat_file(f"{self._root}/{self._index.remote}")
        except FileNotFoundError:
            return f"{self._url} holds no prepared data any more"
        except Exception as error:  # noqa: BLE001 - every fsspec file system raises its own types
            return f"{self._url} lacks {name}, and its manifest cannot be read: {error}"
        if hashlib.sha256(index).hexdigest() != self._index.sha256:
            return (
                f"{self._url} was replaced by another run of prepare since it was opened: open it "
                "again; a run that goes on needs the data that it began with"
            )
        return (
            f"{self._url} lacks {name}: call prepare with processed_url where the data were "
            "prepared, which sends what is missing"
        )


def main() -> None:
    """Fetch until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # those of a group are meant for who trains
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    settings = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with, args=(settings["parent"],), daemon=True).start()
    fetching = _Fetching(settings, answers)
    fetching.start(settings["n_threads"])
    for line in sys.stdin:
        fetching.hear(json.loads(line))
    os._exit(0)  # in the middle of a range, which the next one asks for again


def _end_with(parent: int) -> None:
    """End once the parent is gone: a child of its own may still hold stdin's other end."""
    while os.getppid() == parent:
        threading.Event().wait(1.0)
    os._exit(0)
