"""Which cells come next: a shuffle without a list.

The order of an epoch is a pure function of (seed, epoch, position), see `order.py`. So nothing of
the size of the data is held, any position is reached at once, and a run can go on with another
number of ranks.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

from scdiff_data.loading.order import BalancedDraw, BlockPermutation, KeyedPermutation

_N_STEPS = 16
"""Steps whose rows are worked out together: a call costs more than the rows of a step."""


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
        How many ranks share the cells, and which one this is.
    seed
        Of the shuffle.
    shuffle
        Whether the order is the keyed permutation of (seed, epoch), or that of the rows.
    drop_last
        Whether incomplete batches are left out.
    block_size
        Neighbouring rows that stay together when shuffled: above 1, reads are longer and batches
        less mixed.
    classes
        Each cell's class, whole numbers [n_cells]: an epoch then is `n_cells` draws with
        replacement, each class drawn as often as any other. Takes 4 bytes a cell.

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
        n_ranks: int = 1,
        rank: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        block_size: int = 1,
        classes: NDArray[np.integer[Any]] | None = None,
    ) -> None:
        if batch_size < 1 or block_size < 1:
            raise ValueError(
                f"batch_size and block_size must be at least 1, got {batch_size} and {block_size}"
            )
        if shuffle and block_size > n_cells:
            raise ValueError(
                f"block_size={block_size} exceeds the {n_cells} cells, so nothing would be "
                "shuffled: lower block_size"
            )
        if classes is not None and (block_size > 1 or not shuffle):
            raise ValueError(
                "classes are drawn a cell at a time: leave block_size at 1 and shuffle at True, "
                f"got {block_size} and {shuffle}"
            )
        if drop_last and n_cells < n_ranks * batch_size:
            raise ValueError(
                f"batch_size={batch_size} exceeds a rank's share of the cells: {n_cells} cells on "
                f"{n_ranks} ranks are {n_cells // n_ranks} each; lower batch_size or draw more "
                "cells"
            )
        if n_cells < n_ranks:
            raise ValueError(f"{n_cells} cells are too few for {n_ranks} ranks: draw more cells")
        super().__init__(
            range(n_cells),  # type: ignore[arg-type]
            num_replicas=n_ranks,
            rank=rank,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
        )
        self.n_cells = n_cells
        self.batch_size = batch_size
        self.block_size = block_size
        self._draw = None if classes is None else BalancedDraw(classes)
        self._checksum = 0 if classes is None else crc32(classes.astype(np.int64).tobytes())
        self.start = 0
        """Position, in cells of all ranks, at which the next iteration starts."""

    @property
    def order(self) -> dict[str, int]:
        """What the order of an epoch depends on; `classes` is a checksum, 0 without any."""
        names = ("n_cells", "seed", "shuffle", "block_size")
        return {name: int(getattr(self, name)) for name in names} | {"classes": self._checksum}

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
        order = self._order()
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

    def _order(self) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
        """The epoch's rows as a function of positions."""
        key = (self.seed, self.epoch)
        if self._draw is not None:
            draw = self._draw
            return lambda positions: draw(positions, *key)
        if not self.shuffle:
            return lambda positions: positions
        if self.block_size > 1:
            return BlockPermutation(self.n_cells, self.block_size, *key)
        return KeyedPermutation(self.n_cells, *key)
