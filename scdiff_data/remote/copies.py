"""The shards of a local copy, as those who read them see it."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import describe_size, explain_damage, read_sealed
from scdiff_data.errors import ManifestError
from scdiff_data.fetching import FileFetcher, Plan, RemoteFile
from scdiff_data.remote.bucket import INDEX, name_object
from scdiff_data.store import Manifest

_T = TypeVar("_T")
"""What is read of a shard."""

_N_AHEAD = 16
"""Stretches of a plan, such as windows of cells, that are fetched ahead."""

_FETCHERS: WeakValueDictionary[tuple[int, str, str], FileFetcher] = WeakValueDictionary()
"""What brings files: one for each process and copy, whatever the number of its datasets."""


def find_copies(manifest: Manifest) -> "ShardCopies | None":
    """The shards of a directory, if it is a local copy; None where all are here."""
    return ShardCopies(manifest) if manifest.directory.bucket.exists() else None


class ShardCopies:
    """The shards of a local copy: those that are here, and those that can be fetched.

    It can be pickled, and be inherited by a fork: each process fetches for itself.

    Parameters
    ----------
    manifest
        Of the directory.

    Attributes
    ----------
    is_limited
        Whether shards leave.
    """

    def __init__(self, manifest: Manifest) -> None:
        directory, entries = manifest.directory, manifest.shard_entries
        with explain_damage(directory.bucket):
            self._settings = read_sealed(directory.bucket)
            self._limit: int | None = self._settings["limit"]
        self.is_limited = self._limit is not None
        self._directory, self._key = directory, manifest.shards_key
        self._shard_size = manifest.shard_size
        self._paths = manifest.shards
        self._files = [
            RemoteFile(path.name, name_object(entry), entry.size, entry.sha256)
            for path, entry in zip(self._paths, entries, strict=True)
        ]
        self._fetchers: dict[int, FileFetcher] = {}
        self._files_read: dict[int, int | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_fetchers": {}, "_files_read": {}}

    @property
    def _fetcher(self) -> FileFetcher:
        """That of this process."""
        process = os.getpid()
        if process not in self._fetchers:  # one that a fork inherited stays, untouched
            key = (process, str(self._directory.path), self._settings["index"])
            known = _FETCHERS.get(key)
            if known is None:
                known = _FETCHERS[key] = FileFetcher(
                    self._settings["url"],
                    RemoteFile(INDEX, INDEX, 0, self._settings["index"]),
                    self._files,
                    folder=self._directory.shards,
                    aside=self._directory.downloads,
                    limit=self._limit,
                )
            self._fetchers[process] = known
        return self._fetchers[process]

    def _identify(self, shard: int) -> int | None:
        """What another file in a shard's place has another of; None if it is not here."""
        try:
            return self._paths[shard].stat().st_ino
        except FileNotFoundError:
            return None

    def find_gone(self, *, needed: Collection[int]) -> list[int]:
        """Shards that were read and have left since, but for those needed; forgets them."""
        if not self.is_limited:
            return []
        others = [(s, file) for s, file in self._files_read.items() if s not in needed]
        gone = [shard for shard, file in others if self._identify(shard) != file]
        for shard in gone:
            del self._files_read[shard]
        return gone

    def bring(self, shards: Iterable[int], *, waits: bool = True) -> Iterator[int]:
        """These shards, each as soon as it is here; without `waits`, those that are here.

        If all take more than may be here, those that were given first may leave for the others.

        Raises
        ------
        DownloadError, ManifestError, OSError
            If one cannot be had, see `FileFetcher`.
        """
        if not waits:
            yield from (shard for shard in shards if self._identify(shard) is not None)
            return
        some: list[int] = []
        n_bytes = 0
        for shard in shards:
            n_bytes += self._files[shard].size
            if some and self._limit is not None and n_bytes > self._limit:
                yield from self._fetcher.bring(some)
                some, n_bytes = [], self._files[shard].size
            some.append(shard)
        if some:
            yield from self._fetcher.bring(some)

    def read(self, shard: int, read: Callable[[], _T]) -> _T:
        """What `read` gives of a shard, brought again if it left meanwhile."""
        while True:
            for _ in self.bring([shard]):
                pass
            file = self._identify(shard)
            self._files_read[shard] = file
            try:
                return read()
            except (FileNotFoundError, ManifestError):
                if file is not None and self._identify(shard) == file:
                    raise

    def follow(self, stretches: Iterator[NDArray[np.int64]], first: int) -> Plan | None:
        """Bring what an epoch needs, in the order in which its rows come.

        Parameters
        ----------
        stretches
            Rows, as those of a window, one stretch after another.
        first
            The global row that their numbers count from.

        Returns
        -------
        plan
            To be entered, and told when a stretch is over; None if all is here, and stays.

        Raises
        ------
        ValueError
            When a stretch takes more than may be here.
        """
        if not self.is_limited and all(path.exists() for path in self._paths):
            return None

        def list_shards() -> Iterator[list[int]]:
            for rows in stretches:
                first_at = np.full(len(self._paths), -1)
                first_at[(rows[::-1] + first) // self._shard_size] = np.arange(len(rows))[::-1]
                shards = np.flatnonzero(first_at >= 0)
                found: list[int] = shards[np.argsort(first_at[shards])].tolist()
                self._check_room(found)
                yield found

        return self._fetcher.follow(list_shards(), _N_AHEAD)

    def _check_room(self, shards: Sequence[int]) -> None:
        """Raise ValueError if shards that are needed together take more than may be here."""
        if self._limit is None:
            return
        n_bytes = sum(self._files[shard].size for shard in shards)
        if n_bytes > self._limit:
            raise ValueError(
                f"a window of cells lies in {len(shards)} shards of {describe_size(n_bytes)}, more "
                f"than local_limit={describe_size(self._limit)}: raise it to twice that; or set "
                f"shuffle=window and run_size={self._shard_size}, which is shard_size: then a "
                f"window of 65,536 cells lies in {-(-65_536 // self._shard_size) + 2}"
            )
