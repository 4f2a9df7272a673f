"""Orders of cells: bijections with the statistics of a random draw, entered at any position."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scdiff_data.loading.order import BalancedDraw, BlockPermutation, KeyedPermutation
from scdiff_data.loading.sampler import CellSampler


@settings(deadline=None)
@given(n=st.integers(1, 10**6), key=st.integers(0, 2**63))
@example(n=1, key=0)
@example(n=2, key=0)
@example(n=10**6, key=0)
def test_the_keyed_permutation_is_a_bijection_for_every_size(n: int, key: int) -> None:
    is_hit = np.zeros(n, bool)
    is_hit[KeyedPermutation(n, key)(np.arange(n))] = True
    assert is_hit.all()


@settings(deadline=None)
@given(n=st.integers(1, 10**5), block_size=st.integers(1, 3000), key=st.integers(0, 2**63))
@example(n=10, block_size=10, key=0)
@example(n=10, block_size=3, key=0)
def test_the_block_permutation_is_a_bijection_that_keeps_blocks_in_order(
    n: int, block_size: int, key: int
) -> None:
    values = BlockPermutation(n, block_size, key)(np.arange(n))
    is_hit = np.zeros(n, bool)
    is_hit[values] = True
    assert is_hit.all()
    is_start = values % block_size == 0
    assert is_start[0]
    assert (np.diff(values)[~is_start[1:]] == 1).all()


@settings(deadline=None)
@given(
    n=st.integers(1, 3000),
    block_size=st.integers(1, 100),
    positions=st.lists(st.integers(0, 2999), min_size=1, max_size=20),
)
def test_a_block_permutation_is_the_same_wherever_it_is_entered(
    n: int, block_size: int, positions: list[int]
) -> None:
    order = BlockPermutation(n, block_size, 5)
    some = np.array(positions) % n
    assert np.array_equal(order(some), order(np.arange(n))[some])


def test_the_short_block_comes_anywhere() -> None:
    places = {
        int(np.flatnonzero(BlockPermutation(103, 10, key)(np.arange(103)) == 100)[0])
        for key in range(300)
    }
    assert places == set(range(0, 101, 10))


@pytest.mark.parametrize("order", [KeyedPermutation(10**10, 3), BlockPermutation(10**10, 7, 3)])
def test_any_position_of_a_huge_permutation_is_reached_at_once(order: KeyedPermutation) -> None:
    positions = np.arange(5 * 10**9, 5 * 10**9 + 1000)
    values = order(positions)
    assert len(np.unique(values)) == 1000
    assert values.min() >= 0
    assert values.max() < 10**10
    assert np.array_equal(order(positions[::-1]), values[::-1])


@pytest.mark.parametrize("block_size", [1, 64])
def test_half_a_billion_positions_are_passed_in_no_time_and_no_memory(block_size: int) -> None:
    next(iter(CellSampler(1000, 128, block_size=block_size)))  # compiles
    tracemalloc.start()
    try:
        started = time.perf_counter()
        sampler = CellSampler(10**9, 128, block_size=block_size)
        sampler.start = 5 * 10**8 // 128 * 128
        rows = next(iter(sampler))
        took = time.perf_counter() - started
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(np.unique(rows)) == 128
    assert took < 0.01
    assert peak < 10e6


@pytest.mark.parametrize("key", range(3))
def test_the_permutation_has_the_statistics_of_a_random_one(key: int) -> None:
    n = 100_000
    values = KeyedPermutation(n, 0, key)(np.arange(n))
    steps = np.abs(np.diff(values)) / n
    # Of two independent uniform numbers: mean 1/3, standard deviation 1/√18.
    assert abs(steps.mean() - 1 / 3) < 5 / np.sqrt(18 * n) * 2
    counts = np.bincount(values[: n // 10] // (n // 100), minlength=100)
    chi2 = ((counts - 100) ** 2 / 100).sum() / 0.9  # without replacement: a tenth is gone
    assert 50 < chi2 < 165  # 99 degrees of freedom: 0.001 % on each side
    other = KeyedPermutation(n, 0, key + 1)(np.arange(n))
    bound = 5 / np.sqrt(n)
    assert abs(np.corrcoef(values, other)[0, 1]) < bound  # ranks already: Spearman's
    assert abs(np.corrcoef(values, np.arange(n))[0, 1]) < bound
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < bound


def entropies(order: np.ndarray, experiment: np.ndarray, batch_size: int) -> np.ndarray:
    """Of the experiments in each batch, in bits."""
    batches = experiment[order][: len(order) // batch_size * batch_size].reshape(-1, batch_size)
    shares = np.stack([np.bincount(b, minlength=experiment.max() + 1) for b in batches])
    shares = shares / batch_size
    return -np.sum(shares * np.log2(np.where(shares > 0, shares, 1)), axis=1)


def test_a_batch_has_the_entropy_over_experiments_of_an_iid_draw() -> None:
    n, rng = 128 * 800, np.random.default_rng(0)
    experiment = np.sort(rng.choice(10, n, p=np.arange(1, 11) / 55))  # unmixed, as they come
    ours = entropies(KeyedPermutation(n, 1, 2)(np.arange(n)), experiment, 128)
    iid = entropies(rng.integers(0, n, n), experiment, 128)
    error = np.hypot(ours.std(), iid.std()) / np.sqrt(len(ours))
    assert abs(ours.mean() - iid.mean()) < 4 * error
    assert ours.mean() > 3.0


def test_blocks_of_unmixed_rows_mix_batches_less() -> None:
    n = 128 * 200
    experiment = np.arange(n) * 10 // n
    mixed, blocks = (
        entropies(BlockPermutation(n, size, 1)(np.arange(n)), experiment, 128).mean()
        for size in (1, 64)
    )
    assert mixed > 3.2
    assert blocks < 1.1  # a batch is two or three blocks


def test_a_balanced_draw_takes_every_class_equally_often_and_every_row_of_it() -> None:
    rng = np.random.default_rng(0)
    classes = rng.choice([-1, 0, 3, 7], 20_000, p=[0.01, 0.04, 0.25, 0.7])
    n_draws = 200_000
    rows = BalancedDraw(classes)(np.arange(n_draws), 5, 0)
    shares = np.unique(classes[rows], return_counts=True)[1] / n_draws
    assert np.abs(shares - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / n_draws)
    rare = np.flatnonzero(classes == -1)
    counts = np.bincount(rows, minlength=len(classes))[rare]
    chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert abs(chi2 - len(rare)) < 5 * np.sqrt(2 * len(rare))


def test_balanced_draws_of_epochs_and_neighbours_are_independent() -> None:
    classes = np.zeros(100_000, np.int8)
    draw, positions = BalancedDraw(classes), np.arange(100_000)
    first, second = draw(positions, 1, 0), draw(positions, 1, 1)
    bound = 5 / np.sqrt(len(positions))
    assert abs(np.corrcoef(first, second)[0, 1]) < bound
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < bound
    assert len(np.unique(first)) == pytest.approx(100_000 * (1 - np.exp(-1)), rel=0.01)
    assert np.array_equal(draw(positions[500:600], 1, 0), first[500:600])
