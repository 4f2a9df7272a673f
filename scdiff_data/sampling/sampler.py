"""Which cells come next: a shuffle without a list.

The order of an epoch is a pure function of (seed, epoch, position), see `order.py`. So nothing of
the size of the data is held, any position is reached at once, and a run can go on with another
number of ranks.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

from scdiff_data.sampling.keyed_permutation import KeyedPermutation
from scdiff_data.sampling.order import BalancedDraw, WindowPermutation, divide_rows
from scdiff_data.sampling.ranks import check_ranks, find_group_ranks

_N_STEPS = 16
"""Steps whose rows are worked out together: a call costs more than the rows of a step."""


_IF_MISSING = {"window_size": 0, "run_size": 0, "block_size": 1, "classes": 0, "cells": 0}
"""What an order means that lacks a setting: older ones had blocks, and no windows."""


def check_shuffle(shuffle: str, window_size: int, run_size: int) -> None:
    """Raise ValueError if the settings of a shuffle are none, or contradict each other."""
    if shuffle not in ("window", "global"):
        raise ValueError(f"shuffle must be window or global, got {shuffle!r}")
    for name, size in (("window_size", window_size), ("run_size", run_size)):
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {size!r}")
    if run_size > window_size:
        raise ValueError(
            f"run_size={run_size} exceeds window_size={window_size}, which is cut from whole runs: "
            "lower run_size, at best to a hundredth of window_size"
        )


class CellSampler(DistributedSampler[Any]):
    """Row numbers of one rank's batches, a whole batch at a time.

    Ranks take interleaved positions of one global order, so that the batches of all ranks at a step
    are a run of it. With `drop_last` every rank gets the same number of full batches, and fewer
    than n_ranks x batch_size cells are left out, other ones each epoch. Without, every cell comes
    exactly once and every rank gets the same number of batches, none of them empty.

    It is a `DistributedSampler` so that Lightning leaves it in place and calls `set_epoch`.

    Parameters
    ----------
    n_cells
        Cells in all.
    batch_size
        Cells a batch and rank.
    n_ranks, rank
        How many ranks share the cells, and which one this is. None: those of torch's process
        group, whenever they are asked for; without a group there is one. Of a number of ranks
        alone, this is the first.
    seed
        Of the shuffle.
    shuffle
        `window` (or True): runs of neighbouring rows are shuffled, and their rows within windows,
        see `WindowPermutation`; where rows lie mixed, as in the shards, batches are as mixed as
        those of `global`, every row by itself. False: the order of the rows.
    drop_last
        Whether incomplete batches are left out.
    window_size
        Rows of a window, at most; up to so many cells both shuffles are the same. Two windows are
        in memory at a time where cells do not fit: let them take a quarter to half of it. The
        default's rows of 2,000 genes take 262 MB.
    run_size
        Neighbouring rows of a run, which are read at once.
    classes
        Each cell's class, whole numbers [n_cells]: an epoch then is `n_cells` draws with
        replacement, each class drawn as often as any other. Takes 4 bytes a cell, beside these.
    cells_key
        A number that other cells in the rows' places would not have; 0 if it is not known.

    Raises
    ------
    ValueError
        If the cells do not make one batch for every rank, or the settings contradict each other.
    """

    def __init__(
        self,
        n_cells: int,
        batch_size: int,
        *,
        n_ranks: int | None = None,
        rank: int | None = None,
        seed: int = 0,
        shuffle: bool | Literal["window", "global"] = "window",
        drop_last: bool = True,
        window_size: int = 65_536,
        run_size: int = 256,
        classes: NDArray[np.integer[Any]] | None = None,
        cells_key: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        kind = "window" if isinstance(shuffle, bool) else shuffle
        check_shuffle(kind, window_size, run_size)
        if classes is not None and not shuffle:
            raise ValueError("classes are drawn at random: leave shuffle at 'window', got False")
        rank = 0 if rank is None and n_ranks is not None else rank
        check_ranks(n_ranks, rank)
        self._n_ranks, self._rank = n_ranks, rank
        self.n_cells, self.batch_size, self.drop_last = n_cells, batch_size, drop_last
        self._check_share()
        super().__init__(
            range(n_cells),  # type: ignore[arg-type]
            num_replicas=self.num_replicas,
            rank=self.rank,
            shuffle=bool(shuffle),
            seed=seed,
            drop_last=drop_last,
        )
        self._n_ranks, self._rank = n_ranks, rank  # not those that a group has by now
        self.window_size = window_size
        self.run_size = run_size
        self.is_pinned = False
        """Whether `set_epoch` says which epoch comes; else a loader counts."""
        self._kind = kind
        self._is_windowed = kind == "window"
        self._classes = classes
        self.cells_key = cells_key
        self._draw = None if classes is None else BalancedDraw(classes)
        self._checksum = 0 if classes is None else _sum_up(classes)
        self.start = 0
        """Position, in cells of all ranks, at which the next iteration starts."""
        self.place: tuple[int, int] | None = None
        """Epoch and position of a restored state, until an iteration has begun."""

    @property
    def num_replicas(self) -> int:
        """How many ranks share the cells."""
        return find_group_ranks()[0] if self._n_ranks is None else self._n_ranks

    @num_replicas.setter
    def num_replicas(self, n: int) -> None:
        self._n_ranks = n

    @property
    def rank(self) -> int:
        """Which of them this is."""
        return find_group_ranks()[1] if self._rank is None else self._rank

    @rank.setter
    def rank(self, rank: int) -> None:
        self._rank = rank

    @property
    def has_ranks(self) -> bool:
        """Whether somebody named the ranks; else the process group does."""
        return self._n_ranks is not None

    def __repr__(self) -> str:
        kind = "balanced" if self._draw else (self._kind if self.shuffle else "in order")
        return (
            f"CellSampler({self.n_cells:,} cells, batches of {self.batch_size}, {kind}, seed "
            f"{self.seed}, epoch {self.epoch}, rank {self.rank} of {self.num_replicas})"
        )

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes, until this is called again."""
        super().set_epoch(epoch)
        self.is_pinned = True

    def replace(self, **changes: Any) -> "CellSampler":
        """The same sampler, in the same epoch, but for some arguments."""
        settings: dict[str, Any] = {
            "n_ranks": self._n_ranks,
            "rank": self._rank,
            "seed": self.seed,
            "shuffle": self.shuffle and self._kind,
            "drop_last": self.drop_last,
            "window_size": self.window_size,
            "run_size": self.run_size,
            "classes": self._classes,
            "cells_key": self.cells_key,
        }
        other = CellSampler(self.n_cells, self.batch_size, **(settings | changes))
        other.epoch, other.is_pinned = self.epoch, self.is_pinned
        return other

    def _check_share(self) -> None:
        """Raise ValueError if the cells do not make one batch for every rank."""
        n_ranks, n_cells = self.num_replicas, self.n_cells
        if self.drop_last and n_cells < n_ranks * self.batch_size:
            raise ValueError(
                f"batch_size={self.batch_size} exceeds a rank's share of the cells: {n_cells} "
                f"cells on {n_ranks} ranks are {n_cells // n_ranks} each; lower batch_size or draw "
                "more cells"
            )
        if n_cells < n_ranks:
            raise ValueError(f"{n_cells} cells are too few for {n_ranks} ranks: draw more cells")

    @property
    def order(self) -> dict[str, int]:
        """What the order of an epoch depends on.

        The sizes are 0 where they do not matter, `classes` is a checksum, 0 without any, and
        `cells` is 0 where it is not known which they are.
        """
        is_cut = self.shuffle and self._is_windowed and self.n_cells > self.window_size
        sizes = (self.window_size, self.run_size) if is_cut and self._draw is None else (0, 0)
        return {
            "n_cells": self.n_cells,
            "seed": self.seed,
            "shuffle": int(self.shuffle),
            "window_size": sizes[0],
            "run_size": sizes[1],
            "classes": self._checksum,
            "cells": self.cells_key,
        }

    @property
    def global_batch_size(self) -> int:
        """Cells a step takes on all ranks together."""
        return self.num_replicas * self.batch_size

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.count_batches(0)

    def count_batches(self, position: int) -> int:
        """Batches that are left of an epoch from a position on."""
        n_full, left = divmod(self.n_cells - position, self.global_batch_size)
        if self.drop_last:
            return n_full
        return max(n_full + (left >= self.num_replicas), int(n_full + left > 0))

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Row numbers, int64, a batch at a time."""
        self._check_share()  # a process group may have been made since
        order = self.epoch_order()
        steps = self.global_batches()
        size = self.batch_size
        # Many steps at once: their cells are one run of positions, and calls cost more than rows.
        while run := list(islice(steps, _N_STEPS)):
            rows = order(np.arange(run[0][0] + self.rank, run[-1][1], self.num_replicas))
            for start in range(0, size * len(run) - size, size):
                yield rows[start : start + size]
            yield rows[size * len(run) - size :]  # the epoch's last may be longer or shorter

    def global_batches(self) -> Iterator[tuple[int, int]]:
        """First position and end of every step's cells, from `start` on."""
        step = self.global_batch_size
        at = self.start
        end = self.n_cells
        while at + step <= end if self.drop_last else at < end:
            left_after = end - at - step
            too_few = not self.drop_last and left_after < self.num_replicas
            size = end - at if too_few else step
            yield at, at + size
            at += size

    def epoch_order(self) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
        """The epoch's rows as a function of positions; of windows, a `WindowPermutation`."""
        key = (self.seed, self.epoch)
        if self._draw is not None:
            draw = self._draw
            return lambda positions: draw(positions, *key)
        if not self.shuffle:
            return lambda positions: positions
        if self._is_windowed:
            return WindowPermutation(self.n_cells, self.window_size, self.run_size, *key)
        return KeyedPermutation(self.n_cells, *key)


def _sum_up(classes: NDArray[np.integer[Any]]) -> int:
    """CRC32 of the classes as int64, some at a time."""
    checksum = 0
    for chunk in divide_rows(len(classes)):
        checksum = crc32(classes[chunk].astype(np.int64).tobytes(), checksum)
    return checksum


def compare_orders(there: Mapping[str, int], here: Mapping[str, int]) -> list[str]:
    """What differs between two samplers' `order`, one of which an older version may have kept."""
    there, here = _IF_MISSING | {**there}, _IF_MISSING | {**here}
    if not (there["cells"] and here["cells"]):
        there = there | {"cells": here["cells"]}
    return [f"{k}: {there[k]} there, {here[k]} here" for k in here if there[k] != here[k]]
