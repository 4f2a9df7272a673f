"""Orders of cells: bijections with the statistics of a random draw, entered at any position."""

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scdiff_data.sampling.keyed_permutation import KeyedPermutation
from scdiff_data.sampling.order import BalancedDraw, RunPermutation, WindowPermutation
from scdiff_data.sampling.sampler import CellSampler


@given(n=st.integers(1, 10**6), key=st.integers(0, 2**63))
@example(n=1, key=0)
@example(n=2, key=0)
@example(n=10**6, key=0)
def test_the_keyed_permutation_is_a_bijection_for_every_size(n: int, key: int) -> None:
    is_hit = np.zeros(n, bool)
    is_hit[KeyedPermutation(n, key)(np.arange(n))] = True
    assert is_hit.all()


@given(n=st.integers(1, 10**5), run_size=st.integers(1, 3000), key=st.integers(0, 2**63))
@example(n=10, run_size=10, key=0)
@example(n=10, run_size=3, key=0)
@example(n=3, run_size=10, key=0)
def test_the_run_permutation_is_a_bijection_that_keeps_runs_in_order(
    n: int, run_size: int, key: int
) -> None:
    values = RunPermutation(n, run_size, key)(np.arange(n))
    is_hit = np.zeros(n, bool)
    is_hit[values] = True
    assert is_hit.all()
    is_start = values % run_size == 0
    assert is_start[0]
    assert (np.diff(values)[~is_start[1:]] == 1).all()


def test_the_short_run_comes_anywhere() -> None:
    places = {
        int(np.flatnonzero(RunPermutation(103, 10, key)(np.arange(103)) == 100)[0])
        for key in range(300)
    }
    assert places == set(range(0, 101, 10))


@st.composite
def window_sizes(draw: st.DrawFn) -> tuple[int, int, int]:
    """n, window_size and run_size: one window or many, tails, and what does not divide."""
    run_size = draw(st.integers(1, 60))
    window_size = draw(st.integers(run_size, 400))
    return draw(st.integers(1, 3000)), window_size, run_size


WINDOWS = [
    (14, 7, 3),
    (300, 1, 1),
    (3000, 60, 60),
    (3000, 3000, 7),
    (3001, 3000, 7),
    (50, 100, 60),
]


def with_examples(test: Any) -> Any:
    for sizes in WINDOWS:
        test = example(sizes=sizes, key=0)(test)
    return test


@given(sizes=window_sizes(), key=st.integers(0, 2**63))
@with_examples
def test_windows_divide_the_positions_into_nearly_equal_parts(
    sizes: tuple[int, int, int], key: int
) -> None:
    n, window_size, _ = sizes
    order = WindowPermutation(*sizes, key)
    bounds = [order.bounds(window) for window in range(order.n_windows)]
    assert [0, *(stop for _, stop in bounds)] == [*(start for start, _ in bounds), n]
    lengths = {stop - start for start, stop in bounds}
    assert max(lengths) <= window_size
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) * (order.n_windows - 1) < n  # no more windows than it takes
    for window, (start, stop) in enumerate(bounds):
        assert order.window_of(start) == order.window_of(stop - 1) == window


@given(sizes=window_sizes(), key=st.integers(0, 2**63))
@with_examples
def test_a_window_serves_exactly_its_runs_and_all_windows_every_row_once(
    sizes: tuple[int, int, int], key: int
) -> None:
    n, _, run_size = sizes
    order = WindowPermutation(*sizes, key)
    values, served = order(np.arange(n)), []
    for window in range(order.n_windows):
        start, stop = order.bounds(window)
        runs = order.runs(window)
        assert runs.dtype == np.int64
        assert len(runs) <= (stop - start) // run_size + 3  # two are cut, and one is short
        rows = np.concatenate([np.arange(*run) for run in runs])
        assert np.array_equal(np.sort(values[start:stop]), rows)
        served.append(rows)
    assert np.array_equal(np.sort(np.concatenate(served)), np.arange(n))


@given(sizes=window_sizes(), positions=st.lists(st.integers(0, 2999), min_size=1, max_size=20))
def test_windows_are_the_same_wherever_they_are_entered(
    sizes: tuple[int, int, int], positions: list[int]
) -> None:
    order = WindowPermutation(*sizes, 5)
    some = np.array(positions) % sizes[0]
    assert np.array_equal(order(some), order(np.arange(sizes[0]))[some])


@pytest.mark.parametrize("n", [1, 2, 999, 1000])
def test_up_to_one_window_the_order_is_the_global_one(n: int) -> None:
    order = WindowPermutation(n, 1000, 64, 4, 2)
    assert np.array_equal(order(np.arange(n)), KeyedPermutation(n, 4, 2)(np.arange(n)))


@pytest.mark.parametrize(
    "order",
    [KeyedPermutation(10**10, 3), RunPermutation(10**10, 7, 3), WindowPermutation(10**10, 900, 7)],
)
def test_any_position_of_a_huge_permutation_is_reached_at_once(order: KeyedPermutation) -> None:
    positions = np.arange(5 * 10**9, 5 * 10**9 + 1000)
    values = order(positions)
    assert len(np.unique(values)) == 1000
    assert values.min() >= 0
    assert values.max() < 10**10
    assert np.array_equal(order(positions[::-1]), values[::-1])


@pytest.mark.parametrize("shuffle", ["window", "global"])
def test_half_a_billion_positions_are_passed_in_no_time_and_no_memory(shuffle: Any) -> None:
    next(iter(CellSampler(1000, 128, shuffle=shuffle, window_size=300, run_size=7)))  # compiles
    tracemalloc.start()
    try:
        started = time.perf_counter()
        sampler = CellSampler(10**9, 128, shuffle=shuffle)
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


def meetings(before: np.ndarray, after: np.ndarray, batch_size: int) -> float:
    """Pairs of a batch that shared one in the epoch before, relative to an ideal shuffle."""
    batch_of = np.empty(len(before), np.int64)
    batch_of[before] = np.arange(len(before)) // batch_size
    batches = np.sort(batch_of[after].reshape(-1, batch_size))
    pairs = 0
    for batch in batches:
        counts = np.unique(batch, return_counts=True)[1]
        pairs += int((counts * (counts - 1)).sum())
    ideal = (batch_size - 1) / (len(before) - 1)
    return pairs / (len(before) * (batch_size - 1)) / ideal


def test_cells_of_a_window_meet_again_as_rarely_as_its_size_says() -> None:
    n, positions = 64 * 1600, np.arange(64 * 1600)

    def measure(make: Any) -> float:
        return meetings(make(0)(positions), make(1)(positions), 64)

    error = 1 / np.sqrt(n * 63 / 2 * 63 / n)  # of a count of that mean
    assert abs(measure(lambda epoch: KeyedPermutation(n, epoch)) - 1) < 5 * error
    expected = 1 + n * 128 / 6400**2
    found = measure(lambda epoch: WindowPermutation(n, 6400, 128, epoch))
    assert abs(found - expected) < 5 * error
    # Without windows, neighbours meet in every epoch.
    assert measure(lambda epoch: RunPermutation(n, 128, epoch)) > 100


def test_windows_are_permuted_independently_of_each_other_and_of_the_runs() -> None:
    n_windows, size = 200, 500
    values = WindowPermutation(n_windows * size, size, 1, 3)(np.arange(n_windows * size))
    runs = RunPermutation(n_windows * size, 1, 3)(np.arange(n_windows * size))
    # The place among its window's runs of what a position serves.
    where = np.empty(n_windows * size, np.int64)
    where[runs] = np.arange(n_windows * size)
    places = where[values].reshape(n_windows, size) % size
    bound = 5 / np.sqrt(places.size)
    assert abs(np.corrcoef(places[:-1].ravel(), places[1:].ravel())[0, 1]) < bound
    assert abs(np.corrcoef(places.ravel(), np.tile(np.arange(size), n_windows))[0, 1]) < bound
    assert abs(np.corrcoef(places[:, :-1].ravel(), places[:, 1:].ravel())[0, 1] + 1 / size) < bound
    counts = np.bincount(places[:, 0], minlength=size)  # which one comes first
    assert counts.max() <= 5


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


def test_a_balanced_draw_takes_four_bytes_a_row_to_make_and_to_keep() -> None:
    classes = np.random.default_rng(0).integers(0, 40, 2_000_000).astype(np.uint8)
    BalancedDraw(classes[:100])  # compiles
    tracemalloc.start()
    draw = BalancedDraw(classes)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 4.1 * len(classes)
    assert peak < 5 * len(classes)
    drawn = draw(np.arange(100_000), 1, 0)
    shares = np.bincount(classes[drawn], minlength=40) / 100_000
    assert np.abs(shares - 1 / 40).max() < 5 * np.sqrt(1 / 40 / 100_000)
