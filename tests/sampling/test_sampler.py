"""Samplers share the cells among ranks: disjoint, complete, in one global order."""

from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data.sampling.order import WindowPermutation
from scdiff_data.sampling.sampler import CellSampler


def rows_of(sampler: CellSampler) -> list[list[int]]:
    return [rows.tolist() for rows in sampler]


# Cells, ranks, batch size, epoch; and how they are shuffled.
sizes = st.tuples(st.integers(1, 400), st.integers(1, 5), st.integers(1, 20), st.integers(0, 3))
shuffles = st.sampled_from(
    [
        {"shuffle": "global"},
        {},
        {"window_size": 1, "run_size": 1},
        {"window_size": 20, "run_size": 3},
        {"window_size": 64, "run_size": 64},
        {"shuffle": True, "window_size": 200, "run_size": 7},
    ]
)


@given(sizes=sizes, shuffle=shuffles)
def test_with_drop_last_ranks_get_equal_full_batches_and_no_cell_twice(
    sizes: tuple[int, int, int, int], shuffle: dict[str, Any]
) -> None:
    n_cells, n_ranks, batch_size, epoch = sizes
    if n_cells < n_ranks * batch_size:
        with pytest.raises(ValueError, match=rf"batch_size={batch_size} exceeds a rank's share"):
            CellSampler(n_cells, batch_size, n_ranks=n_ranks)
        return
    seen = []
    for rank in range(n_ranks):
        sampler = CellSampler(n_cells, batch_size, n_ranks=n_ranks, rank=rank, seed=1, **shuffle)
        sampler.set_epoch(epoch)
        batches = rows_of(sampler)
        assert len(batches) == len(sampler) == n_cells // (n_ranks * batch_size)
        assert all(len(batch) == batch_size for batch in batches)
        seen += list(chain.from_iterable(batches))
    assert len(set(seen)) == len(seen)
    assert n_cells - len(seen) < n_ranks * batch_size


@given(sizes=sizes)
def test_without_drop_last_every_cell_comes_once_in_equally_many_batches(
    sizes: tuple[int, int, int, int],
) -> None:
    n_cells, n_ranks, batch_size, _ = sizes
    if n_cells < n_ranks:
        with pytest.raises(ValueError, match="too few"):
            CellSampler(n_cells, batch_size, n_ranks=n_ranks, shuffle=False, drop_last=False)
        return
    seen = []
    for rank in range(n_ranks):
        sampler = CellSampler(
            n_cells, batch_size, n_ranks=n_ranks, rank=rank, shuffle=False, drop_last=False
        )
        batches = rows_of(sampler)
        assert len(batches) == len(sampler)
        assert all(0 < len(batch) <= batch_size + (n_ranks > 1) for batch in batches)
        seen += list(chain.from_iterable(batches))
    assert sorted(seen) == list(range(n_cells))


@pytest.mark.parametrize("window_size", [40, 103])
def test_another_epoch_has_another_order_and_leaves_out_other_cells(window_size: int) -> None:
    sampler = CellSampler(103, 10, seed=0, window_size=window_size, run_size=4)
    left_out = []
    for epoch in range(20):
        sampler.set_epoch(epoch)
        left_out.append(frozenset(range(103)) - set(chain.from_iterable(rows_of(sampler))))
    assert len(set(left_out)) >= 19


CLASSES = np.random.default_rng(0).integers(0, 4, 100)
ORDERS = {
    "global": {"shuffle": "global"},
    "windows": {"window_size": 30, "run_size": 7},
    "balanced": {"classes": CLASSES},
    "in the order of the rows": {"shuffle": False},
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
@settings(max_examples=50)
@given(step=st.integers(0, 9), n_ranks=st.integers(1, 4), batch_size=st.integers(1, 20))
def test_any_number_of_ranks_and_any_batch_size_goes_on_in_the_same_global_order(
    order: dict[str, Any], step: int, n_ranks: int, batch_size: int
) -> None:
    whole = list(chain.from_iterable(rows_of(CellSampler(100, 1, seed=4, **order))))
    first = CellSampler(100, 5, n_ranks=2, seed=4, **order)
    start = step * first.global_batch_size
    rest = []
    ranks = [
        CellSampler(100, batch_size, n_ranks=n_ranks, rank=r, seed=4, **order)
        for r in range(n_ranks)
    ]
    for sampler in ranks:
        sampler.start = start
    for batches in zip(*map(rows_of, ranks), strict=True):
        rest += [batch[i] for i in range(batch_size) for batch in batches]
    assert rest == whole[start : start + len(rest)]
    assert 100 - start - len(rest) < n_ranks * batch_size


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_the_epochs_order_is_a_function_of_positions(order: dict[str, Any]) -> None:
    sampler = CellSampler(100, 10, **order)
    sampler.set_epoch(3)
    whole = list(chain.from_iterable(rows_of(sampler)))
    assert sampler.epoch_order()(np.arange(100)).tolist() == whole
    windows = {"window_size": 30, "run_size": 7}
    assert isinstance(sampler.epoch_order(), WindowPermutation) == (order == windows)


def test_orders_that_are_the_same_are_described_alike() -> None:
    windows = {"window_size": 30, "run_size": 7}

    def describe(**changes: Any) -> dict[str, int]:
        return CellSampler(100, 10, **(windows | changes)).order

    small = {"window_size": 100}
    assert describe(shuffle="global") == describe(**small) == describe(shuffle="global", **small)
    assert describe(shuffle="global")["window_size"] == 0
    assert describe() != describe(run_size=8) != describe(window_size=31) != describe(**small)
    assert describe(classes=CLASSES) == describe(classes=CLASSES, shuffle="global")
    assert describe(shuffle=False) == describe(shuffle=False, **small)


def test_balanced_epochs_differ_and_have_as_many_draws_as_there_are_cells() -> None:
    sampler = CellSampler(100, 10, classes=CLASSES)
    assert len(sampler) == len(rows_of(sampler)) == 10
    first = rows_of(sampler)
    sampler.set_epoch(1)
    assert rows_of(sampler) != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"window_size": 0}, "window_size must be a whole number of at least 1, got 0"),
        ({"run_size": 2.5}, "run_size must be a whole number of at least 1, got 2.5"),
        ({"run_size": 9, "window_size": 8}, "run_size=9 exceeds window_size=8.*lower run_size"),
        ({"shuffle": "blocks"}, "shuffle must be window or global, got 'blocks'"),
        ({"shuffle": False, "classes": CLASSES}, "leave shuffle at 'window', got False"),
    ],
)
def test_settings_that_contradict_are_clear_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CellSampler(100, **({"batch_size": 5} | change))
