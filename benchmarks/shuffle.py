"""What windows cost in mixing and in time: `python benchmarks/shuffle.py`.

Of batches of 128 among 1,000,000 cells of ten equal experiments: their entropy over experiments,
where rows lie mixed as in our shards, and where they lie experiment by experiment; how many of the
pairs of cells in a batch were together in a batch of the epoch before, relative to an ideal
shuffle, beside 1 + cells x run_size / window_size^2; and the time that a row's place takes, asked
for as the loader does. Then the meetings of the default sizes among more cells. Needs no data;
`--quick` takes fewer epochs, and no more than 1,000,000 cells.
"""

import argparse
import time
from typing import Any

import numpy as np
from fixtures.goals import print_goal
from numpy.typing import NDArray

from scdiff_data.sampling.sampler import CellSampler

N_CELLS, N_EXPERIMENTS, BATCH_SIZE = 1_000_000, 10, 128
STEPS = 16
"""Batches whose rows the sampler works out together."""
WINDOW_SIZE, RUN_SIZE = 65_536, 256
"""The defaults."""
SIZES = [
    (256, 256),
    (8_192, 64),
    (16_384, 256),
    (65_536, 64),
    (WINDOW_SIZE, RUN_SIZE),
    (65_536, 1_024),
    (65_536, 4_096),
    (262_144, 1_024),
]


def read_batches(n_cells: int, epoch: int, **settings: Any) -> NDArray[np.int64]:
    """Rows of every full batch of an epoch, [n_batches, 128]."""
    sampler = CellSampler(n_cells, BATCH_SIZE, **settings)
    sampler.set_epoch(epoch)
    return np.stack(list(sampler))


def measure_entropy(batches: NDArray[np.int64], experiment: NDArray[np.int64]) -> float:
    """Mean over batches of the entropy of their experiments, bits."""
    shares = np.stack([np.bincount(experiment[b], minlength=N_EXPERIMENTS) for b in batches])
    shares = shares / BATCH_SIZE
    return float(-np.sum(shares * np.log2(np.where(shares > 0, shares, 1)), axis=1).mean())


def measure_meetings(n_cells: int, n_epochs: int, **settings: Any) -> float:
    """Pairs of a batch that shared one in the epoch before, relative to an ideal shuffle."""
    n_met = n_pairs = 0
    batch_of = np.full(n_cells, -1)
    for epoch in range(n_epochs + 1):
        batches = read_batches(n_cells, epoch, **settings)
        if epoch:
            before = np.sort(batch_of[batches], axis=1)
            apart = 1
            while (same := (before[:, apart:] == before[:, :-apart]).sum()) > 0:
                n_met += int(same)
                apart += 1
            n_pairs += len(batches) * BATCH_SIZE * (BATCH_SIZE - 1) // 2
        batch_of[:] = -1
        batch_of[batches] = np.arange(len(batches))[:, None]
    return n_met / n_pairs / ((BATCH_SIZE - 1) / (n_cells - 1))


def measure_time(n_cells: int, **settings: Any) -> float:
    """Nanoseconds that a row takes, at the best of ten passes."""
    order = CellSampler(n_cells, BATCH_SIZE, **settings).epoch_order()
    step, n_positions = STEPS * BATCH_SIZE, 200 * STEPS * BATCH_SIZE
    took = []
    for _ in range(10):
        started = time.perf_counter()
        for start in range(0, n_positions, step):
            order(np.arange(start, start + step))
        took.append(time.perf_counter() - started)
    return min(took) / n_positions * 1e9


def expect_meetings(n_cells: int, window_size: int, run_size: int) -> float:
    """What `measure_meetings` comes to: the rest of a run is near in the next epoch, too."""
    return 1 + n_cells * run_size / window_size**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    is_quick = parser.parse_args().quick
    n_epochs = 1 if is_quick else 5
    rng = np.random.default_rng(0)
    sorted_rows = np.arange(N_CELLS) * N_EXPERIMENTS // N_CELLS
    mixed_rows = rng.permutation(sorted_rows)
    iid = rng.integers(N_CELLS, size=(N_CELLS // BATCH_SIZE, BATCH_SIZE))
    reference = measure_entropy(iid, mixed_rows)
    print(f"{N_CELLS:,} cells, batches of {BATCH_SIZE}; an independent draw: {reference:.3f} bits")
    print("                  bits, rows lie       pairs met")
    print("window / run       mixed   unmixed       again     formula  ns a row")
    orders: list[tuple[str, dict[str, Any], float]] = [("global", {"shuffle": "global"}, 1.0)]
    for window, run in SIZES:
        settings = {"window_size": window, "run_size": run}
        orders.append((f"{window:,} / {run:,}", settings, expect_meetings(N_CELLS, window, run)))
    found = {}
    for name, settings, expected in orders:
        batches = read_batches(N_CELLS, 1, **settings)
        mixed, unmixed = (measure_entropy(batches, e) for e in (mixed_rows, sorted_rows))
        met = measure_meetings(N_CELLS, n_epochs, **settings)
        ns = measure_time(N_CELLS, **settings)
        print(
            f"{name:16}  {mixed:8.3f}  {unmixed:8.3f}  {met:10,.2f}  {expected:10,.2f}  {ns:8.1f}"
        )
        found[name] = mixed, met
    default = {"window_size": WINDOW_SIZE, "run_size": RUN_SIZE}
    for n_cells in () if is_quick else (2_000_000, 5_000_000, 20_000_000):
        met = measure_meetings(n_cells, 2, **default)
        expected = expect_meetings(n_cells, WINDOW_SIZE, RUN_SIZE)
        print(f"{n_cells:,} cells, default sizes: {met:.2f}, formula {expected:.2f}")
    mixed, met = found[f"{WINDOW_SIZE:,} / {RUN_SIZE:,}"]
    print_goal("entropy_vs_iid", mixed / reference, ">=", 0.99, digits=3)
    print_goal("meetings_vs_global", met / found["global"][1], "<=", 1.2)


if __name__ == "__main__":
    main()
