"""The compiled loops that sort an archive's rows into buffers, one a bucket."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import compiled
from scdiff_data.shuffle.buckets import HEADER_BYTES, start_record
from scdiff_data.shuffle.packing import pack_marked, pack_row


# What the loops see, with 2 chosen genes of 4, buckets of 100 rows, and row 2 of an archive,
# which is cell 130:
#
#     slot_of_gene  -1  1  -1  0          gene 3 is the best one, then gene 1; others are left out
#     indptr        …  5  8               row 2 has the values 5 … 7
#     indices       …  0  1  3            genes
#     data          …  4  2  9            counts
#     rows          …  130                cell 130 is row 30 of bucket 1
#
#     counts, marks   9 2, bits 0 and 1   the cell's chosen counts, and which of them are its own
#     buffers[1]      … 30 4 0 | 1 9 1 2  a record is added; `filled[1]` moves on
@compiled
def sort_rows(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
    rows: NDArray[Any],
    first: int,
    last: int,
    slot_of_gene: NDArray[Any],
    counts: NDArray[Any],
    marks: NDArray[Any],
    wanted: NDArray[Any],
    n_each: int,
    buffers: NDArray[Any],
    filled: NDArray[Any],
) -> tuple[int, int]:
    """Sort rows until a buffer is full; gives the row it stopped before, and that bucket."""
    n_bytes = buffers.shape[1]
    slots, values = np.empty(0, slot_of_gene.dtype), np.empty(0, np.int16)
    for i in range(first, last):
        row = np.int64(rows[i])
        if row < 0:
            continue
        bucket = int(row // n_each)
        if not wanted[bucket]:
            continue
        low, high = np.int64(indptr[i]), np.int64(indptr[i + 1])
        at = filled[bucket]
        most = min(np.int64(len(counts)), high - low)
        if at + HEADER_BYTES + 4 * most + 2 * (len(counts) // 255 + 1) + 4 > n_bytes:
            return i, bucket
        if high - low > len(slots):
            slots = np.empty(2 * (high - low), slot_of_gene.dtype)
            values = np.empty(2 * (high - low), np.int16)
        _choose_counts(
            indices[low:high], data[low:high], slot_of_gene, slots, values, counts, marks
        )
        end = pack_marked(counts, marks, buffers[bucket], at + HEADER_BYTES)
        filled[bucket] = start_record(buffers[bucket], at, row - bucket * n_each, end, 0)
    return last, -1


@compiled
def _choose_counts(
    indices: NDArray[Any],
    data: NDArray[Any],
    slot_of_gene: NDArray[Any],
    slots: NDArray[Any],
    values: NDArray[Any],
    counts: NDArray[Any],
    marks: NDArray[Any],
) -> None:
    """A row's chosen counts at their slots, marked; `slots` and `values` are scratch of its length.

    First all values are looked up without a branch, which would be guessed wrong too often.
    """
    n, one = np.uint64(0), np.uint64(1)
    for k in range(np.uint64(len(indices))):
        slot = slot_of_gene[np.uint64(indices[k])]
        slots[n], values[n] = slot, data[k]
        n += np.uint64(slot >= 0)
    for k in range(n):
        place = np.uint64(slots[k])
        counts[place] = values[k]
        marks[place >> np.uint64(6)] |= one << (place & np.uint64(63))


@compiled
def sort_block(
    block: NDArray[Any],
    rows: NDArray[Any],
    starts: NDArray[Any],
    slots: NDArray[Any],
    genes: NDArray[Any],
    first: int,
    n_each: int,
    buffers: NDArray[Any],
    filled: NDArray[Any],
) -> tuple[int, int]:
    """The same of dense rows; of row i, the places replaced start at `starts[i]`."""
    n_bytes = buffers.shape[1]
    for i in range(first, len(block)):
        row = np.int64(rows[i])
        bucket = int(row // n_each)
        at, n_replaced = filled[bucket], starts[i + 1] - starts[i]
        n_genes = block.shape[1]
        most = 4 * n_genes + 2 * (n_genes // 255 + 1) + 8 * n_replaced
        if at + HEADER_BYTES + most + 4 > n_bytes:
            return i, bucket
        buffer = buffers[bucket]
        end = pack_row(block[i], buffer, at + HEADER_BYTES)
        end = start_record(buffer, at, row - bucket * n_each, end, n_replaced)
        replaced = buffer[end : end + 8 * n_replaced].view(np.int32)
        for k in range(n_replaced):
            replaced[2 * k], replaced[2 * k + 1] = slots[starts[i] + k], genes[starts[i] + k]
        filled[bucket] = end + 8 * n_replaced
    return len(block), -1


@compiled
def scatter_counts(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
    rows: NDArray[Any],
    slot_of_gene: NDArray[Any],
    block: NDArray[Any],
) -> None:
    """The chosen counts of rows as dense ones."""
    for i in range(len(rows)):
        for k in range(np.uint64(indptr[rows[i]]), np.uint64(indptr[rows[i] + 1])):
            slot = slot_of_gene[np.uint64(indices[k])]
            if slot >= 0:
                block[i, np.uint64(slot)] = data[k]
