"""Which cells come next: a shuffle without a list.

The order of an epoch is a keyed permutation, a pure function of (seed, epoch, position). So nothing
of the size of the data is held, any position is reached at once, and a run can go on with another
number of ranks.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

_N_ROUNDS = 8  # even, so that the two halves end with the widths they began with


class KeyedPermutation:
    """A pseudo-random permutation of 0 … n - 1, evaluated where it is asked for.

    A Feistel network over the fewest bits that hold n - 1, walked on until it lands below n (Black
    and Rogaway, CT-RSA 2002): fewer than two steps on average, no memory.

    Parameters
    ----------
    n
        Size, 1 to 2^62.
    key
        Any whole numbers; each key gives another permutation.
    """

    def __init__(self, n: int, *key: int) -> None:
        self._n = n
        self._n_bits = max(2, (n - 1).bit_length())
        text = ",".join(map(str, key)).encode()
        self._round_keys = np.frombuffer(
            hashlib.blake2b(text, digest_size=8 * _N_ROUNDS).digest(), np.uint64
        )

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Values at the positions, int64 of the same length, each in 0 … n - 1."""
        values: NDArray[np.int64] = _permute(positions, self._n, self._n_bits, self._round_keys)
        return values


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

    Raises
    ------
    ValueError
        If the cells do not make one batch for every rank.
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
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
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
        self.n_cells, self.batch_size = n_cells, batch_size
        self.start = 0
        """Position, in cells of all ranks, at which the next iteration starts."""

    @property
    def global_batch_size(self) -> int:
        """Cells a step takes on all ranks together."""
        return self.num_replicas * self.batch_size

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        n_full, left = divmod(self.n_cells, self.global_batch_size)
        return n_full if self.drop_last else max(1, n_full + (left >= self.num_replicas))

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Row numbers, int64, a batch at a time."""
        order = KeyedPermutation(self.n_cells, self.seed, self.epoch)
        for first, end in self.global_batches():
            positions = np.arange(first + self.rank, end, self.num_replicas)
            yield order(positions) if self.shuffle else positions

    def global_batches(self) -> Iterator[tuple[int, int]]:
        """First position and end of every step's cells, from `start` on."""
        step, at, end = self.global_batch_size, self.start, self.n_cells
        while at + step <= end if self.drop_last else at < end:
            left_after = end - at - step
            too_few = not self.drop_last and left_after < self.num_replicas
            size = end - at if too_few else step
            yield at, at + size
            at += size


@numba.njit(cache=True, nogil=True)
def _permute(
    positions: NDArray[Any],
    n: int,
    n_bits: int,
    round_keys: NDArray[Any],
) -> NDArray[np.int64]:
    values = np.empty(len(positions), np.int64)
    low_bits = np.uint64(n_bits - n_bits // 2)
    high_bits = np.uint64(n_bits // 2)
    one = np.uint64(1)
    for i in range(len(positions)):
        value = np.uint64(positions[i])
        while True:
            left, right = value >> low_bits, value & ((one << low_bits) - one)
            left_bits, right_bits = high_bits, low_bits
            for key in round_keys:
                mixed = (right ^ key) * np.uint64(0xFF51AFD7ED558CCD)
                mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
                mixed ^= mixed >> np.uint64(33)
                left, right = right, left ^ (mixed & ((one << left_bits) - one))
                left_bits, right_bits = right_bits, left_bits
            value = (left << right_bits) | right
            if value < np.uint64(n):
                break
        values[i] = np.int64(value)
    return values
