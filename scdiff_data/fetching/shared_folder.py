"""A folder that several processes bring files to: each file by one of them, within a limit.

Who fetches a file holds its byte of one lock file, which the system gives back when a process is
killed. A file leaves by being unlinked: whoever has it mapped reads on, and the disk's space comes
back once nobody has.
"""

import fcntl
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_NS_TO_MAP = 100_000_000
"""Nanoseconds for which a file stays: else one process could delete what another one waited for."""


class RemoteFile(NamedTuple):
    """A file that can be fetched: its name here, its object there, and what its bytes are."""

    name: str
    remote: str
    size: int
    sha256: str


class SharedFolder:
    """A folder of files that are known by their numbers.

    Parameters
    ----------
    folder
        Where whole files are.
    aside
        Where they are while they are fetched, on the same disk.
    files
        All that may come.
    limit
        Bytes that the folder may hold, with those on their way; None sets no limit.
    """

    def __init__(
        self, folder: Path, aside: Path, files: Sequence[RemoteFile], limit: int | None
    ) -> None:
        self._folder, self._aside, self._files, self._limit = folder, aside, files, limit
        self._numbers = {file.name: number for number, file in enumerate(files)}
        folder.mkdir(parents=True, exist_ok=True)
        aside.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        self._lock = os.open(aside / "shards.lock", flags, 0o666)

    def path(self, number: int) -> Path:
        """Where a file is, once it is whole."""
        return self._folder / self._files[number].name

    def path_aside(self, number: int) -> Path:
        """Where it is before."""
        return self._aside / self._files[number].name

    def take(self, number: int) -> bool:
        """Become the one who fetches a file, if no other process is."""
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number + 1)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, number: int) -> None:
        """No longer be it."""
        fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, number + 1)

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """Alone among all processes."""
        fcntl.lockf(self._lock, fcntl.LOCK_EX, 1, 0)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, 0)

    def make_room(
        self,
        number: int,
        kept: Collection[int],
        *,
        at_any_rate: bool,
        is_patient: bool = False,
    ) -> bool:
        """Let the least recently used files leave until there is room for one; whether there is.

        Parameters
        ----------
        number
            The file that is to come; it counts from now on.
        kept
            Files that stay.
        at_any_rate
            Whether it comes even if there is no room: somebody waits for it.
        is_patient
            Whether it does not yet, while others fetch files that may leave once they are here.
        """
        if self._limit is None:
            return True
        with self._deciding():
            # In this order, and twice: one that is renamed meanwhile is seen twice, and not
            # overlooked; a listing amid its renaming may show neither name.
            aside = self._list(self._aside) | self._list(self._aside)
            here = self._list(self._folder)
            coming = {n for n in aside if n not in here and n != number}
            n_bytes = sum(self._files[n].size for n in {*here, *coming, number})
            may_leave = [n for n in sorted(here, key=here.__getitem__) if n not in {*kept, number}]
            for other in may_leave:
                if n_bytes <= self._limit:
                    break
                if time.time_ns() - here[other] < _NS_TO_MAP:
                    return False
                self.path(other).unlink(missing_ok=True)
                n_bytes -= self._files[other].size
            of_others = coming - {*kept}
            if n_bytes > self._limit:
                dropped = self._drop_begun(of_others)
                of_others -= dropped
                n_bytes -= sum(self._files[n].size for n in dropped)
            if n_bytes > self._limit and (not at_any_rate or (is_patient and of_others)):
                return False
            part = self.path_aside(number)
            part.with_name(f"{part.name}.part").touch()
            return True

    def _drop_begun(self, files: Collection[int]) -> set[int]:
        """Delete what killed processes left of some files; gives those."""
        dropped = set()
        for number in files:
            if self.take(number):
                aside = self.path_aside(number)
                for path in (aside, aside.with_name(f"{aside.name}.part")):
                    path.unlink(missing_ok=True)
                dropped.add(number)
                self.release(number)
        return dropped

    def _list(self, folder: Path) -> dict[int, int]:
        """The files in a folder, and when each was last used."""
        found = {}
        with os.scandir(folder) as entries:
            for entry in entries:
                number = self._numbers.get(entry.name.removesuffix(".part"))
                if number is not None:
                    try:
                        found[number] = entry.stat(follow_symlinks=False).st_atime_ns
                    except FileNotFoundError:
                        continue
        return found

    def note_use(self, numbers: Collection[int]) -> None:
        """Note that these are in use; the time of their last change stays."""
        if self._limit is None:
            return
        for number in numbers:
            try:
                os.utime(
                    self.path(number), ns=(time.time_ns(), self.path(number).stat().st_mtime_ns)
                )
            except FileNotFoundError:
                continue

    def put(self, number: int) -> None:
        """Give a file that is whole its name."""
        aside = self.path_aside(number)
        descriptor = os.open(aside, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # a name that outlived the bytes would never be doubted again
        finally:
            os.close(descriptor)
        os.utime(aside)
        aside.replace(self.path(number))
