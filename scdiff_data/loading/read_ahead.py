"""What will be read is asked for while what was read is served.

The order of cells is known as far ahead as one likes. In windows, the runs of the next window are
asked for little by little while the cells of this one are handed out:

    positions    | window 0            | window 1            | window 2 …
    served            ▲
    asked for    |─────────────────────|───▶                            runs of whole rows

In an order without runs, single rows are, a few batches ahead, but only while rows come from the
disk: for each, a hint takes as long as a copy. Runs are asked for by the main process alone: they
fill the system's cache, which workers read from.

Where this process gathers, too, a thread of its own tells the system: to start a read takes most of
the processor's time that it costs.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import tell_here
from scdiff_data.sampling import CellSampler, WindowPermutation

_CONSECUTIVE_ROWS = 4096
"""Rows that are asked for together where cells come in the order of the rows."""

_RUNS_AT_ONCE = 16
"""Runs asked for in one go: each go takes as long as a few of them."""

_BATCHES_AHEAD = 4
"""Batches whose rows are asked for one by one; two gave the same speed, and so did 256."""


_MOST_HINTS = 8
"""Hints that wait for the thread; then who gathers waits for it."""


class ReadAhead:
    """Row numbers of batches as a sampler gives them, while what follows is asked for.

    Parameters
    ----------
    batches
        Row numbers of the batches, or of groups of them, from the sampler's `start` on.
    sampler
        Knows the order.
    dataset
        Is asked for runs of rows, if it has `ask_for_runs`, or for rows, if it has `ask_for`.
    gathers_here
        Whether batches are gathered in this process: only then are rows asked for one by one, and
        by a thread of its own.
    """

    def __init__(
        self,
        batches: Iterable[NDArray[np.int64]],
        sampler: CellSampler,
        dataset: Any,
        *,
        gathers_here: bool,
    ) -> None:
        self._batches = batches
        self._sampler = sampler
        self._dataset = dataset
        self._gathers_here = gathers_here

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        windows = self._find_windows()
        batches = self._batches
        if hasattr(self._dataset, "follow"):
            batches = self._bring_shards(windows)
        if windows is not None and hasattr(self._dataset, "ask_for_runs"):
            return self._ask_by_a_thread(self._ask_for_windows(windows, batches))
        if self._gathers_here and hasattr(self._dataset, "ask_for"):
            return self._ask_by_a_thread(self._ask_for_rows(batches))
        return iter(batches)

    def _bring_shards(
        self, windows: "WindowPermutation | _Consecutive | None"
    ) -> Iterator[NDArray[np.int64]]:
        """The same, while a local copy's shards are brought, a window after another."""
        sampler = self._sampler
        windows = windows or _Consecutive(sampler.n_cells, sampler.window_size)
        at = sampler.start
        over = windows.window_of(min(at, sampler.n_cells - 1))

        def list_rows() -> Iterator[NDArray[np.int64]]:
            order, position = sampler.epoch_order(), at + sampler.rank
            for window in range(over, windows.n_windows):
                own = np.arange(position, windows.bounds(window)[1], sampler.num_replicas)
                yield order(own)
                position += len(own) * sampler.num_replicas

        plan = self._dataset.follow(list_rows())
        if plan is None:
            yield from self._batches
            return
        with plan:
            for rows in self._batches:
                yield rows
                at += len(rows) * sampler.num_replicas
                while over < windows.n_windows - 1 and at >= windows.bounds(over)[1]:
                    over += 1
                    plan.go_on()

    def _ask_by_a_thread(self, batches: Iterator[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
        """The same, while a thread tells the system."""
        if not self._gathers_here:
            yield from batches
            return
        with HintThread() as tell:
            watch = self._dataset.watch
            watch.tell = tell
            try:
                yield from batches
            finally:
                watch.tell = tell_here

    def _find_windows(self) -> "WindowPermutation | _Consecutive | None":
        """The epoch's windows; None in an order without."""
        if not self._sampler.shuffle:
            return _Consecutive(self._sampler.n_cells, _CONSECUTIVE_ROWS)
        order = self._sampler.epoch_order()
        return order if isinstance(order, WindowPermutation) else None

    def _ask_for_windows(
        self,
        windows: "WindowPermutation | _Consecutive",
        batches: Iterable[NDArray[np.int64]],
    ) -> Iterator[NDArray[np.int64]]:
        sampler, ask_for_runs = self._sampler, self._dataset.ask_for_runs
        at = sampler.start
        following = windows.window_of(min(at, sampler.n_cells - 1))
        reached, left = self._find_runs(windows, following)  # of `following`, not yet asked for
        runs_each, owed = 0.0, 0.0  # a cell served, and since the last time
        for rows in batches:
            n_served = len(rows) * sampler.num_replicas
            at += n_served
            while at > reached:
                ask_for_runs(left)
                start, stop = windows.bounds(following)
                following += 1
                reached, left = self._find_runs(windows, following)
                runs_each, owed = len(left) / (stop - start), 0.0
            owed += runs_each * n_served
            if owed >= _RUNS_AT_ONCE:
                ask_for_runs(left[: int(owed)])
                left = left[int(owed) :]
                owed -= int(owed)
            yield rows

    def _find_runs(
        self, windows: "WindowPermutation | _Consecutive", window: int
    ) -> tuple[float, NDArray[np.int64]]:
        """A window's first position and runs, whose narrow columns are asked for at once."""
        if window >= windows.n_windows:
            return math.inf, np.empty((0, 2), np.int64)
        runs = windows.runs(window)
        self._dataset.ask_for_columns(runs)
        return windows.bounds(window)[0], runs

    def _ask_for_rows(self, batches: Iterable[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
        dataset, watch = self._dataset, self._dataset.watch
        ask_for_columns = getattr(dataset, "ask_for_columns", None)
        ahead: deque[NDArray[np.int64]] = deque()
        watch.asks_itself = False
        try:
            for rows in batches:
                ahead.append(rows)
                if watch.is_cold:
                    if ask_for_columns is not None:  # these say where the counts lie
                        ask_for_columns(np.stack([rows, rows + 1], axis=1))
                    if len(ahead) > _BATCHES_AHEAD:
                        dataset.ask_for(ahead[_BATCHES_AHEAD])
                if len(ahead) > 2 * _BATCHES_AHEAD:
                    yield ahead.popleft()
            if watch.is_cold:
                for rows in islice(ahead, _BATCHES_AHEAD, None):
                    dataset.ask_for(rows)
            yield from ahead
        finally:
            watch.asks_itself = True


class HintThread:
    """A thread that tells the system of rows, in the order of the calls; a context manager.

    A process's first call of each kind runs in the caller: it compiles, which a process forked
    meanwhile could not go on with. On leaving, what waits is dropped.
    """

    _known: ClassVar[set[Callable[..., None]]] = set()

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "HintThread":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __call__(self, hint: Callable[..., None], *arguments: Any, kept: Any = None) -> None:
        """Call `hint` with its arguments, while `kept` is kept."""
        if hint not in self._known:
            self._known.add(hint)
            hint(*arguments)
            return
        while len(self._waiting) >= _MOST_HINTS:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(tell_here, hint, *arguments, kept=kept))


class _Consecutive:
    """Rows in their order, as windows of one run each."""

    def __init__(self, n: int, size: int) -> None:
        self._n, self._size = n, size
        self.n_windows = -(-n // size)

    def window_of(self, position: int) -> int:
        """The window of a position."""
        return position // self._size

    def bounds(self, window: int) -> tuple[int, int]:
        """Its first position, and the one after its last."""
        start = window * self._size
        return start, min(start + self._size, self._n)

    def runs(self, window: int) -> NDArray[np.int64]:
        """Its rows as a run, int64 [1, 2]."""
        return np.array([self.bounds(window)], np.int64)
