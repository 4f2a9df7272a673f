"""What blocks cost in mixing: `python benchmarks/shuffle.py`.

Of batches of 128 among 200,000 cells of ten equal experiments: their entropy over experiments,
where rows lie mixed as in our shards, and where they lie experiment by experiment; and how many of
the pairs of cells in a batch were together in a batch of the epoch before. Needs no data; `--quick`
takes fewer batches.
"""

import argparse
from itertools import islice

import numpy as np
from fixtures.goals import print_goal

from scdiff_data.loading.sampler import CellSampler

N_CELLS, N_EXPERIMENTS, BATCH_SIZE = 200_000, 10, 128


def read_batches(block_size: int, epoch: int, n_batches: int | None = None) -> list[np.ndarray]:
    sampler = CellSampler(N_CELLS, BATCH_SIZE, block_size=block_size)
    sampler.set_epoch(epoch)
    return list(islice(sampler, n_batches))


def measure_entropy(batches: list[np.ndarray], experiment: np.ndarray) -> float:
    """Mean over batches of the entropy of their experiments, bits."""
    shares = np.stack([np.bincount(experiment[b], minlength=N_EXPERIMENTS) for b in batches])
    shares = shares / BATCH_SIZE
    return float(-np.sum(shares * np.log2(np.where(shares > 0, shares, 1)), axis=1).mean())


def measure_meetings(block_size: int, n_batches: int) -> float:
    """Fraction of pairs of a batch that shared one in the epoch before."""
    before = np.full(N_CELLS, -1)
    for number, rows in enumerate(read_batches(block_size, 0)):
        before[rows] = number
    pairs = 0
    for rows in read_batches(block_size, 1, n_batches):
        _, sizes = np.unique(before[rows], return_counts=True)
        pairs += int((sizes * (sizes - 1)).sum())
    return pairs / (n_batches * BATCH_SIZE * (BATCH_SIZE - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer batches")
    n_batches = 300 if parser.parse_args().quick else 1_500
    rng = np.random.default_rng(0)
    sorted_rows = np.arange(N_CELLS) * N_EXPERIMENTS // N_CELLS
    mixed_rows = rng.permutation(sorted_rows)
    iid = [rng.integers(N_CELLS, size=BATCH_SIZE) for _ in range(n_batches)]
    reference = measure_entropy(iid, mixed_rows)
    print(f"an independent draw: {reference:.3f} bits")
    print("block_size  mixed rows  rows by experiment  pairs met before")
    for block_size in (1, 4, 16, 64, 256, 1024):
        batches = read_batches(block_size, 1, n_batches)
        mixed, unmixed = (measure_entropy(batches, e) for e in (mixed_rows, sorted_rows))
        if block_size == 1:
            shuffled = mixed / reference
        met = measure_meetings(block_size, n_batches)
        print(f"{block_size:10}  {mixed:10.3f}  {unmixed:18.3f}  {met:16.2%}")
    print_goal("entropy_vs_iid", shuffled, ">=", 0.99, digits=3)


if __name__ == "__main__":
    main()
