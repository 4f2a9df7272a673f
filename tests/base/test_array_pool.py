"""Room is used again, but never while anybody holds what is in it."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scdiff_data.base.array_pool import ArrayPool

torch = pytest.importorskip("torch")  # tensors hold arrays, too


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_room_that_nobody_holds_is_used_again() -> None:
    buffers = ArrayPool()
    first = address(buffers.take((128, 50), np.int16))
    assert address(buffers.take((128, 50), np.int16)) == first
    assert address(buffers.take((120, 50), np.int16)) == first  # a little less fits in, too


@pytest.mark.parametrize(
    "hold",
    [
        lambda array: array,
        lambda array: array[3:5],
        torch.from_numpy,
        lambda array: torch.from_numpy(array)[1:],
        lambda array: torch.from_numpy(array).view(-1).numpy(),
        memoryview,
    ],
    ids=["array", "view", "tensor", "tensor-view", "array-of-a-tensor", "memoryview"],
)
def test_room_that_is_held_stays_as_it_is(hold: Any) -> None:
    buffers = ArrayPool()
    held = hold(buffers.take((64, 32), np.int16))
    now = held.numpy() if isinstance(held, torch.Tensor) else np.asarray(held)
    before = now.copy()
    for value in range(10):
        buffers.take((64, 32), np.int16)[:] = value
    assert np.array_equal(now, before)


@given(keeps=st.lists(st.integers(0, 7), min_size=1, max_size=60))
def test_batches_kept_for_any_time_are_never_changed(keeps: list[int]) -> None:
    buffers, kept = ArrayPool(), []
    for number, n_steps in enumerate(keeps):
        array = buffers.take((5 + number % 3, 7), np.int16)
        array[:] = number
        kept.append((number + n_steps, number, torch.from_numpy(array)))
        kept = [entry for entry in kept if entry[0] > number]
        assert all((tensor == value).all() for _, value, tensor in kept)


def test_two_threads_never_get_the_same_room() -> None:
    buffers, wrong = ArrayPool(), []

    def work(value: int) -> None:
        for _ in range(3000):
            array = buffers.take((16,), np.int64)
            array[:] = value
            if not (array == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
