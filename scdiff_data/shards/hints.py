"""The compiled loops that tell the system which rows will be gathered."""

from typing import Any

from numpy.typing import NDArray

from scdiff_data.base import ask_for_bytes, compiled
from scdiff_data.shards.loops import read_span


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


@compiled
def ask_for_rows(
    addresses: NDArray[Any],
    firsts: NDArray[Any],
    lasts: NDArray[Any],
    shard_size: int,
    row_bytes: int,
    is_long: bool,  # noqa: FBT001
) -> None:
    """Start to fetch runs of rows, each within a shard; `row_bytes` is 0 for compact ones."""
    for i in range(len(firsts)):
        shard = firsts[i] // shard_size
        first, last = firsts[i] - shard * shard_size, lasts[i] - shard * shard_size
        if row_bytes:
            ask_for_bytes(addresses[0, shard] + first * row_bytes, (last - first + 1) * row_bytes)
        else:
            low = read_span(addresses[0, shard], first, is_long)[0]
            high = read_span(addresses[0, shard], last, is_long)[1]
            if low < high <= addresses[2, shard]:
                ask_for_bytes(addresses[1, shard] + low, high - low)
