"""How far a draw reaches, and what it fetches: sums over experiments, some thousand at a time.

Of each experiment some bytes are kept and nothing else, for a catalog may have a million of them.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scdiff_data.base import find_first
from scdiff_data.sources import DrawOrder

_AT_ONCE = 1 << 14
"""Experiments that sums are made of at a time."""


class Files(NamedTuple):
    """Files that are still to be fetched.

    Parameters
    ----------
    n_bytes
        Bytes of all.
    window
        Bytes of those that are there at once, at the most.
    over_cap
        Bytes fetched for cells over the cap, about.
    """

    n_bytes: int
    window: int
    over_cap: int


class Reach:
    """Cells and bytes of experiments, in the order of the draw.

    Parameters
    ----------
    candidates
        The catalog's rows that the draw is from.
    order
        Their order.
    cap
        Cells that an experiment gives at the most; None is all.
    is_in_place
        Whether no file is fetched.
    cell_bytes
        Bytes of a cell in a file whose size the catalog does not know.

    Attributes
    ----------
    n_in_files
        Cells in the experiments' files, int64 [n].
    source_bytes
        Bytes of all files; None if the catalog does not know all sizes.
    """

    def __init__(
        self,
        candidates: pa.Table,
        order: DrawOrder,
        cap: int | None,
        *,
        is_in_place: bool,
        cell_bytes: int,
    ) -> None:
        self._cap = np.inf if cap is None else cap
        self._known: NDArray[np.int64] = np.empty((2, 0), np.int64)
        # A file of many experiments is fetched once, for the first of them.
        is_other = ~find_first(candidates["path"], order.places)
        sizes = _read_whole(candidates["size"])
        sizes[is_other] = 0
        self.source_bytes = None if candidates["size"].null_count else int(sizes.sum())
        n_in_files = _read_whole(candidates["n_cells"])
        is_unsized = ~is_other & (sizes == 0)
        sizes[is_unsized] = n_in_files[is_unsized] * cell_bytes
        self._sizes = sizes[order.places]
        if is_in_place:
            self._sizes[:] = 0
        del sizes
        self.n_in_files = n_in_files[order.places]

    def know(self, n_cells: Mapping[int, int]) -> None:
        """Take cells of experiments, by their places in the order, that need no fetching."""
        self._known = np.array(sorted(n_cells.items()), np.int64).reshape(-1, 2).T

    def count(self, passing: float) -> int:
        """Cells of all experiments, if a fraction of those in unknown files passes QC."""
        return int(sum(n_cells.sum() for _, n_cells, _ in self._read(passing)))

    def draw(self, passing: float, wanted: int | None) -> tuple[int, int]:
        """Experiments that are tried until there are as many cells as are wanted; their cells."""
        reached, n_tried = 0.0, 0
        for part, n_cells, _ in self._read(passing):
            sums = np.cumsum([reached, *n_cells])[1:]
            n = len(sums)
            if wanted is not None:
                n = min(n, int(np.searchsorted(sums, wanted - 1e-6)) + 1)
            reached, n_tried = float(sums[n - 1]), part.start + n
            if wanted is not None and reached >= wanted - 1e-6:
                break
        return n_tried, int(reached)

    def sum_files(self, passing: float, n_tried: int, n_at_once: int) -> Files:
        """What the first experiments take from the network; so many files are there at once."""
        n_bytes, window, over_cap, last = 0, 0, 0.0, np.empty(0, np.int64)
        for part, _, is_known in self._read(passing, n_tried):
            files = self._sizes[part][~is_known]
            passed = np.maximum(self.n_in_files[part][~is_known] * passing, 1)
            over_cap += float((files * np.clip(1 - self._cap / passed, 0, 1)).sum())
            n_bytes += int(files.sum())
            last = np.concatenate([last, files])
            sums = np.cumsum([0, *last])
            if len(sums) > n_at_once:
                window = max(window, int((sums[n_at_once:] - sums[:-n_at_once]).max()))
            last = last[1 - n_at_once :]
        return Files(n_bytes, window or n_bytes, int(over_cap))

    def sum_splits(
        self, passing: float, n_tried: int, n_drawn: int, codes: NDArray[np.int8], n_splits: int
    ) -> list[float]:
        """Cells of each split of the first experiments, of the last only what is missing."""
        sizes = np.zeros(n_splits)
        for part, n_cells, _ in self._read(passing, n_tried):
            sizes += np.bincount(codes[part], weights=n_cells, minlength=n_splits)
        if n_tried:
            sizes[codes[n_tried - 1]] -= sizes.sum() - n_drawn
        return sizes.tolist()

    def _read(
        self, passing: float, n: int | None = None
    ) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.bool_]]]:
        """Some experiments at a time: their cells, and whether these are known."""
        n = len(self.n_in_files) if n is None else n
        for start in range(0, n, _AT_ONCE):
            part = slice(start, min(start + _AT_ONCE, n))
            n_cells = np.minimum(self.n_in_files[part] * passing, self._cap)
            first, last = np.searchsorted(self._known[0], (part.start, part.stop))
            places, known = self._known[:, first:last]
            is_known = np.zeros(len(n_cells), bool)
            is_known[places - start] = True
            n_cells[places - start] = known
            yield part, n_cells, is_known


def _read_whole(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Whole numbers, 0 for what is missing."""
    parts = (pc.fill_null(part.cast(pa.int64()), 0).to_numpy() for part in column.chunks)
    return np.concatenate([np.empty(0, np.int64), *parts])
