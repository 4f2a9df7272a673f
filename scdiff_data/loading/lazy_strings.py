"""Ids of a batch's cells, which most training never looks at."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.errors import ManifestError


class LazyStrings:
    """LazyStrings that are read when somebody looks at them: most batches' ids never are.

    Works as an array of str does: `texts[3]`, `texts[:5]`, `list(texts)`, `np.asarray(texts)`.
    Pickled, they are read first.

    Parameters
    ----------
    n
        Number of strings.
    read
        Reads them, UTF-8 bytes [n].
    """

    def __init__(self, n: int, read: Callable[[], NDArray[np.bytes_]]) -> None:
        self._n = n
        self._read = read

    @cached_property
    def _encoded(self) -> NDArray[np.bytes_]:
        return self._read()

    def __len__(self) -> int:
        return self._n

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        """Decode all."""
        del copy
        return _decode(self._encoded).astype(dtype or np.str_, copy=False)

    def __getitem__(self, index: Any) -> Any:
        """Decode one, or an array of them; a slice is read when somebody looks at it."""
        if isinstance(index, slice):
            return LazyStrings(len(range(*index.indices(self._n))), lambda: self._encoded[index])
        chosen = _decode(self._encoded[index])
        return chosen if chosen.ndim else str(chosen)

    def __iter__(self) -> Iterator[str]:
        return iter(np.asarray(self).tolist())

    def tolist(self) -> list[str]:
        """All as a list."""
        return list(self)

    def __eq__(self, other: object) -> Any:
        return np.asarray(self) == np.asarray(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyStrings, (self._n, partial(np.asarray, self._encoded))

    def __repr__(self) -> str:
        return f"LazyStrings({np.asarray(self)!r})"


def _decode(encoded: Any) -> NDArray[np.str_]:
    try:
        return np.char.decode(encoded, "utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"a shard is damaged, an id of its cells is no text ({error}): run 'scdiff-data "
            "check', which says which one it is and what to do"
        ) from error
