"""The system is told which rows will be gathered."""

from typing import Any

from numpy.typing import NDArray

from scdiff_data.base import HINT_BYTES, DiskWatch, ask_for_bytes, compiled, count_reads
from scdiff_data.shards.loops import read_span

_ALL = 1 << 62
"""More bytes than any run has."""


@compiled
def ask_for_narrow(
    addresses: NDArray[Any],
    columns: NDArray[Any],
    firsts: NDArray[Any],
    lasts: NDArray[Any],
    shard_size: int,
) -> None:
    """Start to fetch narrow columns of runs; `columns` are place, bytes a row, entries beyond."""
    for i in range(len(firsts)):
        shard = firsts[i] // shard_size
        first, last = firsts[i] - shard * shard_size, lasts[i] - shard * shard_size
        for place, n_bytes, n_beyond in columns:
            at = addresses[place, shard] + first * n_bytes
            ask_for_bytes(at, (last - first + 1 + n_beyond) * n_bytes)


def ask_for_rows(
    addresses: NDArray[Any],
    firsts: NDArray[Any],
    lasts: NDArray[Any],
    shard_size: int,
    row_bytes: int,
    is_long: bool,  # noqa: FBT001
    watch: DiskWatch,
) -> None:
    """Start to fetch runs of rows, each within a shard; `row_bytes` is 0 for compact ones.

    To ask for what is in memory takes a third as long as copying it. So while nothing has to be
    read, only the first part of each run is asked for.
    """
    runs = (addresses, firsts, lasts, shard_size, row_bytes, is_long)
    before = count_reads()
    if not watch.asks_for_all:
        _ask_for_rows(*runs, HINT_BYTES)
        if count_reads() == before:
            return
    _ask_for_rows(*runs, _ALL)
    watch.asks_for_all = count_reads() > before


@compiled
def _ask_for_rows(
    addresses: NDArray[Any],
    firsts: NDArray[Any],
    lasts: NDArray[Any],
    shard_size: int,
    row_bytes: int,
    is_long: bool,  # noqa: FBT001
    most: int,
) -> None:
    """Start to fetch the first `most` bytes of each run."""
    for i in range(len(firsts)):
        shard = firsts[i] // shard_size
        first, last = firsts[i] - shard * shard_size, lasts[i] - shard * shard_size
        if row_bytes:
            n_bytes = (last - first + 1) * row_bytes
            ask_for_bytes(addresses[0, shard] + first * row_bytes, min(n_bytes, most))
        else:
            low = read_span(addresses[0, shard], first, is_long)[0]
            high = read_span(addresses[0, shard], last, is_long)[1]
            if low < high <= addresses[2, shard]:
                ask_for_bytes(addresses[1, shard] + low, min(high - low, most))
