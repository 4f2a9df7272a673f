"""Arrays for batches, used again once nobody holds the batch that was in them.

The system hands out large arrays as new pages, which takes about as long as filling them, and new
pages are in no cache.
"""

import math
import sys
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST = 4
"""Arrays kept: a loader has two in use at a time, a user who holds the last batch one more."""


class ArrayPool:
    """At most four arrays that were handed out before; one that is still held is never touched.

    A tensor made from an array holds it as long as it lives, and so does a view.
    """

    def __init__(self) -> None:
        self._blocks: deque[NDArray[np.uint8]] = deque(maxlen=_MOST)

    def take(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array with anything in it."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        for _ in range(len(self._blocks)):
            block = self._blocks.popleft()  # no other thread can take it now
            is_free = _count_references(block) == _FREE
            self._blocks.append(block)
            if is_free and n_bytes <= len(block) <= 2 * n_bytes:
                return np.ndarray(shape, dtype, block)
        block = np.empty(n_bytes + n_bytes // 8, np.uint8)  # batches of sparse rows differ a little
        self._blocks.append(block)
        return np.ndarray(shape, dtype, block)


def _count_references(block: NDArray[np.uint8]) -> int:
    return sys.getrefcount(block)


def _count_of_free() -> int:
    """References to an array that only the caller holds, as this Python counts them."""
    block = np.empty(0, np.uint8)
    return _count_references(block)


_FREE = _count_of_free()
"""`_count_references` of an array that only a pool holds; measured, since Pythons differ."""
