"""Downloads ahead of their use, in threads."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scdiff_data.fetching.downloads import download
from scdiff_data.telling import Progress


class Fetcher:
    """Starts downloads; made by `fetching`.

    Parameters
    ----------
    file_system, root
        An fsspec file system, and what paths are relative to.
    folder
        Where files go.
    n_threads
        Downloads at a time.
    in_place
        Whether files on a local disk are used where they are.
    n_expected
        Bytes that are likely to be fetched in all, for the progress that is shown.
    """

    def __init__(
        self,
        file_system: Any,
        root: str,
        folder: Path,
        *,
        n_threads: int,
        in_place: bool,
        n_expected: int = 0,
    ) -> None:
        self._file_system, self._root, self._folder = file_system, root, folder
        protocols = file_system.protocol
        names = (protocols,) if isinstance(protocols, str) else tuple(protocols)
        self._in_place = in_place and "file" in names
        self._cancelled = threading.Event()
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="download")
        self._progress = Progress("download", "B")
        self._n_bytes, self._n_expected = 0, n_expected
        self._begun: dict[str, Future[Path]] = {}

    def fetch(self, path: str, name: str, size: int | None, checksum: str | None) -> "Future[Path]":
        """Start to fetch a file under a name; of the same name, the same download again.

        Parameters
        ----------
        path
            The file, relative to the root.
        name
            Name of the local file.
        size, checksum
            As `download` takes them.
        """
        if self._in_place:
            there: Future[Path] = Future()
            there.set_result(Path(f"{self._root}/{path}"))
            return there
        if name not in self._begun:
            if not self._begun:
                self._progress.__enter__()
            self._n_bytes += size or 0
            self._progress.expect(max(self._n_bytes, self._n_expected))
            self._begun[name] = self._pool.submit(
                download,
                self._file_system,
                f"{self._root}/{path}",
                self._folder / name,
                size=size,
                checksum=checksum,
                cancelled=self._cancelled,
                report_bytes=self._progress.add,
            )
        return self._begun[name]

    def forget(self, name: str) -> None:
        """Delete a fetched file; one that was used where it is stays."""
        for path in (self._folder / name, self._folder / f"{name}.part"):
            path.unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop what still runs."""
        self._cancelled.set()
        self._pool.shutdown(cancel_futures=True)
        if self._begun:
            self._progress.expect(self._n_bytes)  # what was expected beyond was not needed
            self._progress.__exit__()


@contextmanager
def fetching(file_system: Any, root: str, folder: Path, **how: Any) -> Iterator[Fetcher]:
    """A `Fetcher`, which takes the same arguments; leaving stops what still runs."""
    fetcher = Fetcher(file_system, root, folder, **how)
    try:
        yield fetcher
    finally:
        fetcher.stop()
