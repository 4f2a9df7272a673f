"""Compact rows: a cell's counts above 0 as pairs of bytes, in the order of the genes.

A pair is the gap to the gene from the one before, and its count. A gap of 0 adds the high byte of a
count above 255; the pair (255, 0) skips 255 genes without one. So the pairs of the best k genes are
the row's beginning.

    gene     0  1  2  3  4  5  …  300  …          2,000 genes, three of them expressed
    count    0  0  0  7  1  0      260

    packed   4 7 | 1 1 | 255 0 | 41 4 | 0 1       4 - 1 = gene 3; + 1 = 4; + 255 + 41 = 300
                                                  260 = 4 + 256 · 1
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import (
    at_address,
    compiled,
    copy_bytes,
    count_trailing_zeros,
    load_eight,
    prefetch,
)


@dataclass(frozen=True)
class PackedRows:
    """Packed rows in memory, in any order.

    Parameters
    ----------
    content
        Where they lie, uint8.
    where, size
        Of each row, where it starts in `content`, and its bytes; int64 [n].
    n_replaced
        Places of each row that hold another gene, int64 [n]. After the row, from a multiple of four
        bytes on, `content` has the slot and the gene of each, int32.
    """

    content: NDArray[np.uint8]
    where: NDArray[np.int64]
    size: NDArray[np.int64]
    n_replaced: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.where)

    def take(self, rows: slice) -> "PackedRows":
        """Some of the rows."""
        return PackedRows(self.content, self.where[rows], self.size[rows], self.n_replaced[rows])

    def unpack(self, n_genes: int) -> NDArray[np.int16]:
        """The rows as dense counts, int16 [n, n_genes]."""
        dense = np.zeros((len(self), n_genes), np.int16)
        _unpack_rows(self.content, self.where, self.size, dense)
        return dense

    def join(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """The packed rows one after another, and where each starts and the last one ends."""
        starts = np.concatenate([[0], np.cumsum(self.size)])
        packed = np.empty(starts[-1], np.uint8)
        _join_rows(self.content, self.where, starts, packed)
        return starts, packed

    def list_replaced(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Slots and genes of the places that hold another gene, row after row."""
        pairs = np.empty((int(self.n_replaced.sum()), 2), np.int32)
        at = self.where + (self.size + 3) // 4 * 4
        _join_pairs(self.content, at, self.n_replaced, pairs)
        return pairs[:, 0].copy(), pairs[:, 1].copy()


def most_row_bytes(n_genes: int) -> int:
    """Bytes of a packed row at the most: two pairs a gene, and a pair for each 255 skipped."""
    return 4 * n_genes + 2 * (n_genes // 255 + 1)


# The same pairs are written in the next two loops: a function for them is not inlined, and its call
# takes ten times as long as a pair.
@compiled
def pack_row(counts: NDArray[Any], packed: NDArray[Any], start: np.int64) -> np.int64:
    """In compiled code: pack a dense row, int16 [n_genes], from `start` on; gives its end."""
    before, at, one, two = -1, np.uint64(start), np.uint64(1), np.uint64(2)
    for gene in range(len(counts)):
        count = np.int64(counts[np.uint64(gene)])
        if count:
            gap = gene - before
            while gap > 255:
                packed[at], packed[at + one] = 255, 0
                at += two
                gap -= 255
            packed[at], packed[at + one] = gap, count & 255
            at += two
            if count > 255:
                packed[at], packed[at + one] = 0, count >> 8
                at += two
            before = gene
    return np.int64(at)


@compiled
def pack_marked(
    counts: NDArray[Any], marks: NDArray[Any], packed: NDArray[Any], start: np.int64
) -> np.int64:
    """In compiled code: pack the marked counts of a row, and take the marks away.

    A gene's mark is bit `gene % 64` of `marks[gene // 64]`; the other counts may be anything.
    """
    before, at, one, two = np.int64(-1), np.uint64(start), np.uint64(1), np.uint64(2)
    for word in range(len(marks)):
        left = marks[np.uint64(word)]
        marks[np.uint64(word)] = np.uint64(0)
        while left:
            gene = np.int64(64 * word) + np.int64(count_trailing_zeros(left))
            left &= left - one
            count = np.int64(counts[np.uint64(gene)])
            if count:
                gap = gene - before
                while gap > 255:
                    packed[at], packed[at + one] = 255, 0
                    at += two
                    gap -= 255
                packed[at], packed[at + one] = gap, count & 255
                at += two
                if count > 255:
                    packed[at], packed[at + one] = 0, count >> 8
                    at += two
                before = gene
    return np.int64(at)


@compiled
def unpack_row(address: int, n_bytes: int, counts: NDArray[Any]) -> None:
    """In compiled code: unpack into zeros [n_genes]; genes beyond are left out."""
    at, end = np.uint64(address), np.uint64(address) + np.uint64(n_bytes)
    gene, n_genes = np.uint64(2**64 - 1), np.uint64(len(counts))
    byte, one = np.uint64(255), np.uint64(8)
    while at + np.uint64(8) <= end:  # four pairs in one read
        pairs = load_eight(at)
        at += np.uint64(8)
        for _ in range(4):
            gap, low = pairs & byte, (pairs >> one) & byte
            pairs >>= np.uint64(16)
            gene += gap
            if gene < n_genes:
                if gap:
                    counts[gene] = np.int16(low)
                else:
                    counts[gene] += np.int16(low << one)
    while at < end:
        pair = numba.carray(at_address(at), 2, np.uint8)
        at += np.uint64(2)
        gap, low = np.uint64(pair[0]), np.uint64(pair[1])
        gene += gap
        if gene < n_genes:
            if gap:
                counts[gene] = np.int16(low)
            else:
                counts[gene] += np.int16(low << one)


@compiled
def translate_row(address: int, n_bytes: int, table: NDArray[Any], tokens: NDArray[Any]) -> None:
    """In compiled code: unpack into tokens [n_genes], which hold `table[0]` before."""
    at, end = np.uint64(address), np.uint64(address) + np.uint64(n_bytes)
    gene, n_genes = np.uint64(2**64 - 1), np.uint64(len(tokens))
    byte, one, count, most = np.uint64(255), np.uint64(8), np.uint64(0), np.uint64(32767)
    while at + np.uint64(8) <= end:
        pairs = load_eight(at)
        at += np.uint64(8)
        for _ in range(4):
            gap, low = pairs & byte, (pairs >> one) & byte
            pairs >>= np.uint64(16)
            gene += gap
            count = low if gap else count + (low << one)
            if gene < n_genes:
                tokens[gene] = table[count & most]
    while at < end:
        pair = numba.carray(at_address(at), 2, np.uint8)
        at += np.uint64(2)
        gap, low = np.uint64(pair[0]), np.uint64(pair[1])
        gene += gap
        count = low if gap else count + (low << one)
        if gene < n_genes:
            tokens[gene] = table[count & most]


@compiled
def pack_rows(dense: NDArray[Any], packed: NDArray[Any], ends: NDArray[Any]) -> np.int64:
    """Pack rows int16 [n, n_genes] one after another; `ends[i]` is where row i ends."""
    at = np.int64(0)
    for i in range(len(dense)):
        at = pack_row(dense[i], packed, at)
        ends[i] = at
    return at


@compiled
def _unpack_rows(
    content: NDArray[Any], where: NDArray[Any], size: NDArray[Any], dense: NDArray[Any]
) -> None:
    """Unpack rows that lie anywhere in `content` into zeros int16 [n, n_genes]."""
    start = content.ctypes.data
    for i in range(len(where)):
        if i + 4 < len(where):
            for at in range(0, size[i + 4], 64):
                prefetch(start + where[i + 4] + at)
        unpack_row(start + where[i], size[i], dense[i])


@compiled
def _join_rows(
    content: NDArray[Any], where: NDArray[Any], starts: NDArray[Any], packed: NDArray[Any]
) -> None:
    from_, to = content.ctypes.data, packed.ctypes.data
    for i in range(len(where)):
        if i + 4 < len(where):
            for at in range(0, starts[i + 5] - starts[i + 4], 64):
                prefetch(from_ + where[i + 4] + at)
        copy_bytes(to + starts[i], from_ + where[i], starts[i + 1] - starts[i])


@compiled
def _join_pairs(
    content: NDArray[Any], where: NDArray[Any], n_each: NDArray[Any], pairs: NDArray[Any]
) -> None:
    n = 0
    for i in range(len(where)):
        copy_bytes(pairs.ctypes.data + 8 * n, content.ctypes.data + where[i], 8 * n_each[i])
        n += n_each[i]
