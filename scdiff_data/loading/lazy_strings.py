"""Ids of a batch's cells, which most training never looks at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info


@dataclass(init=False, repr=False, eq=False)  # for Lightning, see below
class LazyStrings:
    """Strings that are read when somebody looks at them: most batches' ids never are.

    Works as an array of str does: `texts[3]`, `texts[:5]`, `list(texts)`, `np.asarray(texts)`.
    Pickled, they are read first; what fails then in a worker process is told to who looks at them.

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
        chosen = self._encoded[index]
        return chosen.decode() if isinstance(chosen, bytes) else _decode(chosen)

    # Lightning finds the size of a batch for `self.log` by looking at all that is in it, would read
    # every id, and would warn that each is of another size. A dataclass without fields says
    # nothing of its size, if it is no `Iterable`: so `__iter__` is there for those who ask the
    # object, such as pandas, and not in the class. Loops go by `__getitem__`.
    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[str]: ...

    def __getattr__(self, name: str) -> Any:
        if name == "__iter__":
            return lambda: iter(self.tolist())
        raise AttributeError(f"LazyStrings has no attribute {name!r}")

    def tolist(self) -> list[str]:
        """All as a list."""
        texts: list[str] = np.asarray(self).tolist()
        return texts

    def to(self, device: Any, **_: Any) -> "LazyStrings":
        """Themselves: strings stay in the main memory, whatever device a batch is moved to."""
        del device
        return self

    def __deepcopy__(self, memo: Any) -> "LazyStrings":
        return self  # nothing changes them, and a copy would read them

    def __eq__(self, other: object) -> Any:
        return np.asarray(self) == np.asarray(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            read: Callable[[], NDArray[Any]] = partial(np.asarray, self._encoded)
        except Exception as error:
            if get_worker_info() is None:
                raise
            # A thread of the worker sends its batches. One that it fails to send is lost, and the
            # main process would wait for it for ever.
            read = partial(_fail, error)
        return LazyStrings, (self._n, read)

    def __repr__(self) -> str:
        return f"LazyStrings({np.asarray(self)!r})"


def _fail(error: Exception) -> NoReturn:
    raise error


def _decode(encoded: Any) -> NDArray[np.str_]:
    return np.char.decode(encoded, "utf-8")
