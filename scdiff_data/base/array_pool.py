"""Room for batches, used again once nobody holds the batch that was in it.

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


class Buffers:
    """At most four arrays that were handed out before; one that is still held is never touched.

    A tensor made from an array holds it as long as it lives, and so does a view.
    """

    def __init__(self) -> None:
        self._rooms: deque[NDArray[np.uint8]] = deque(maxlen=_MOST)

    def take(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array with anything in it."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        for _ in range(len(self._rooms)):
            room = self._rooms.popleft()  # no other thread can take it now
            is_free = _count_references(room) == _FREE
            self._rooms.append(room)
            if is_free and n_bytes <= len(room) <= 2 * n_bytes:
                return np.ndarray(shape, dtype, room)
        room = np.empty(n_bytes + n_bytes // 8, np.uint8)  # batches of sparse rows differ a little
        self._rooms.append(room)
        return np.ndarray(shape, dtype, room)


def _count_references(room: NDArray[np.uint8]) -> int:
    return sys.getrefcount(room)


def _count_of_free() -> int:
    """References to an array that only the caller holds, as this Python counts them."""
    room = np.empty(0, np.uint8)
    return _count_references(room)


_FREE = _count_of_free()
