"""A pool of threads that work is divided among."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

J = TypeVar("J")
"""A job."""

R = TypeVar("R")
"""What comes of it."""


class Workers:
    """Threads that a file's conversion is divided among.

    Parameters
    ----------
    n
        How many; with one, the calling thread does all.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._pool = ThreadPoolExecutor(n, thread_name_prefix="archive") if n > 1 else None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[J], R], jobs: Iterable[J]) -> list[R]:
        """Results of the function on every job, in the order of the jobs."""
        return list(map(function, jobs) if self._pool is None else self._pool.map(function, jobs))

    def divide(self, jobs: Sequence[J]) -> list[Sequence[J]]:
        """The jobs in `n` runs of about the same length; a thread each, for they share state."""
        bounds = [len(jobs) * i // self.n for i in range(self.n + 1)]
        return [jobs[bounds[i] : bounds[i + 1]] for i in range(self.n)]
