from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data.sampler import CellSampler, KeyedPermutation


@settings(deadline=None)
@given(n=st.integers(1, 20_000), key=st.integers(0, 2**63))
def test_the_keyed_permutation_is_a_bijection_for_every_size(n: int, key: int) -> None:
    values = KeyedPermutation(n, key)(np.arange(n))
    assert np.array_equal(np.sort(values), np.arange(n))


def test_any_position_of_a_huge_permutation_is_reached_at_once() -> None:
    order = KeyedPermutation(10**10, 3)
    positions = np.arange(5 * 10**9, 5 * 10**9 + 1000)
    values = order(positions)
    assert len(np.unique(values)) == 1000
    assert values.min() >= 0
    assert values.max() < 10**10
    assert np.array_equal(order(positions[::-1]), values[::-1])


def test_the_permutation_looks_random() -> None:
    n = 100_000
    values = KeyedPermutation(n, 7)(np.arange(n))
    steps = np.abs(np.diff(values)) / n
    assert abs(steps.mean() - 1 / 3) < 0.005  # of two independent uniform numbers
    blocks = np.bincount(values[:10_000] // (n // 100), minlength=100)
    assert ((blocks - 100) ** 2 / 100).sum() < 150  # χ² with 99 degrees of freedom
    other = KeyedPermutation(n, 8)(np.arange(n))
    assert abs(np.corrcoef(values, other)[0, 1]) < 0.015


def rows_of(sampler: CellSampler) -> list[list[int]]:
    return [rows.tolist() for rows in sampler]


sizes = st.tuples(st.integers(1, 400), st.integers(1, 5), st.integers(1, 20), st.integers(0, 3))


@settings(deadline=None)
@given(sizes=sizes)
def test_with_drop_last_ranks_get_equal_full_batches_and_no_cell_twice(
    sizes: tuple[int, int, int, int],
) -> None:
    n_cells, n_ranks, batch_size, epoch = sizes
    if n_cells < n_ranks * batch_size:
        with pytest.raises(ValueError, match=rf"batch_size={batch_size} exceeds a rank's share"):
            CellSampler(n_cells, batch_size, n_ranks=n_ranks)
        return
    seen = []
    for rank in range(n_ranks):
        sampler = CellSampler(n_cells, batch_size, n_ranks=n_ranks, rank=rank, seed=1)
        sampler.set_epoch(epoch)
        batches = rows_of(sampler)
        assert len(batches) == len(sampler) == n_cells // (n_ranks * batch_size)
        assert all(len(batch) == batch_size for batch in batches)
        seen += list(chain.from_iterable(batches))
    assert len(set(seen)) == len(seen)
    assert n_cells - len(seen) < n_ranks * batch_size


@settings(deadline=None)
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


def test_another_epoch_has_another_order_and_leaves_out_other_cells() -> None:
    sampler = CellSampler(103, 10, seed=0)
    left_out = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        left_out.append(frozenset(range(103)) - set(chain.from_iterable(rows_of(sampler))))
    assert len(set(left_out)) == 3


@settings(deadline=None)
@given(step=st.integers(0, 9), new_ranks=st.integers(1, 4))
def test_another_number_of_ranks_goes_on_in_the_same_global_order(
    step: int, new_ranks: int
) -> None:
    first = CellSampler(100, 5, n_ranks=2, seed=4)
    whole = KeyedPermutation(100, 4, 0)(np.arange(100)).tolist()
    start = step * first.global_batch_size
    rest = []
    ranks = [CellSampler(100, 5, n_ranks=new_ranks, rank=r, seed=4) for r in range(new_ranks)]
    for sampler in ranks:
        sampler.start = start
    for batches in zip(*map(rows_of, ranks), strict=True):
        rest += [batch[i] for i in range(5) for batch in batches]
    assert rest == whole[start : start + len(rest)]
