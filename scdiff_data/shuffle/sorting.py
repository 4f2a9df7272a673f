"""The chosen counts of all drawn cells, sorted into buckets: one pass, archives front to back."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.archive import CsrRows, map_matrix, read_in_order
from scdiff_data.base import Workers
from scdiff_data.shuffle.buckets import HEADER_BYTES, Buckets, BucketWriter
from scdiff_data.shuffle.filling import fill_empty
from scdiff_data.shuffle.loops import scatter_counts, sort_block, sort_rows
from scdiff_data.shuffle.packing import most_row_bytes

_DENSE_BYTES = 8 << 20
"""Dense counts that places are filled in at a time, in each thread."""

_JOB_ROWS = 8192
"""Rows of an archive that a thread takes at a time."""


def sort_cells(
    buckets: Buckets,
    wanted: NDArray[np.bool_],
    rows: Mapping[str, NDArray[np.integer[Any]]],
    archives: Mapping[str, Path],
    gene_indices: NDArray[np.int64],
    *,
    fallback_min_genes: int,
    max_memory: int,
    workers: Workers,
    report_cells: Callable[[int], object],
) -> None:
    """Fill the buckets.

    Parameters
    ----------
    buckets
        The buckets, empty.
    wanted
        Whether each is needed, bool [n_buckets].
    rows
        Of each experiment's archive rows the global row number, -1 if it is not drawn.
    archives
        Path of each experiment's archive.
    gene_indices
        The chosen genes' places in the archives, -1 for one of zeros.
    fallback_min_genes
        See `fill_empty`; 0 never fills.
    max_memory
        Bytes for the buffers of all threads together, about.
    workers
        The threads.
    report_cells
        Called with the number of an archive's rows that were looked at.
    """
    n_genes, matrices = len(gene_indices), {name: map_matrix(archives[name]) for name in rows}
    # A short table stays in the cache.
    slot_type: type[np.int16 | np.int32] = np.int16 if n_genes < 2**15 else np.int32
    slot_of_gene = np.full(next(iter(matrices.values())).n_genes, -1, slot_type)
    is_known = gene_indices >= 0
    slot_of_gene[gene_indices[is_known]] = np.flatnonzero(is_known)
    # Room for two records, of which the larger may hold a replaced place for every gene.
    least = 2 * (
        HEADER_BYTES + most_row_bytes(n_genes) + (8 * n_genes if fallback_min_genes else 0)
    )
    n_bytes = max(least, min(1 << 20, max_memory // (buckets.n * workers.n)))
    sorter = _Sorter(buckets, wanted, slot_of_gene, n_genes, fallback_min_genes, n_bytes)

    def sort(job: tuple[str, int, int]) -> None:
        name, start, stop = job
        with sorter.borrow_writer() as writer:
            for first, last in read_in_order(matrices[name], start, stop):
                sorter.sort(matrices[name], rows[name], first, last, writer)
                report_cells(int((rows[name][first:last] >= 0).sum()))

    workers.map(
        sort,
        [
            (name, start, min(start + _JOB_ROWS, len(of_archive)))
            for name, of_archive in rows.items()
            for start in range(0, len(of_archive), _JOB_ROWS)
        ],
    )
    sorter.close()


class _Sorter:
    """What threads share, and the writers that they take turns with."""

    def __init__(
        self,
        buckets: Buckets,
        wanted: NDArray[np.bool_],
        slot_of_gene: NDArray[np.signedinteger[Any]],
        n_genes: int,
        fallback_min_genes: int,
        n_bytes: int,
    ) -> None:
        self._buckets = buckets
        self._wanted = wanted
        self._slot_of_gene = slot_of_gene
        self._n_genes = n_genes
        self._fallback_min_genes = fallback_min_genes
        self._n_bytes = n_bytes
        self._free: SimpleQueue[BucketWriter] = SimpleQueue()

    @contextmanager
    def borrow_writer(self) -> Iterator[BucketWriter]:
        """A writer for one thread; its buffers keep what is in them."""
        try:
            writer = self._free.get_nowait()
        except Empty:
            writer = BucketWriter(self._buckets, self._n_bytes)
        yield writer
        self._free.put(writer)

    def close(self) -> None:
        """Write what is left in the buffers."""
        while not self._free.empty():
            self._free.get().close()

    def sort(
        self,
        matrix: CsrRows,
        rows: NDArray[np.integer[Any]],
        first: int,
        last: int,
        writer: BucketWriter,
    ) -> None:
        """Sort an archive's rows `first` … `last - 1`."""
        if self._fallback_min_genes:
            n = max(1, _DENSE_BYTES // (2 * self._n_genes))
            for start in range(first, last, n):
                self._sort_filled(matrix, rows, start, min(start + n, last), writer)
            return
        counts = np.empty(self._n_genes, np.int16)
        marks = np.zeros(-(-self._n_genes // 64), np.uint64)
        arrays = matrix.indptr, matrix.indices, matrix.data
        place = self._wanted, self._buckets.n_each, writer.buffers, writer.filled
        at = first
        while at < last:
            at, full = sort_rows(*arrays, rows, at, last, self._slot_of_gene, counts, marks, *place)
            if at < last:
                writer.flush(full)

    def _sort_filled(
        self,
        matrix: CsrRows,
        rows: NDArray[np.integer[Any]],
        first: int,
        last: int,
        writer: BucketWriter,
    ) -> None:
        """The same, where empty places take other genes."""
        drawn = first + np.flatnonzero(rows[first:last] >= 0)
        drawn = drawn[self._wanted[rows[drawn] // self._buckets.n_each]]
        block, cells = np.zeros((len(drawn), self._n_genes), np.int16), np.arange(len(drawn))
        scatter_counts(matrix.indptr, matrix.indices, matrix.data, drawn, self._slot_of_gene, block)
        replaced = fill_empty(
            matrix, drawn, cells, self._slot_of_gene, block, min_genes=self._fallback_min_genes
        )
        starts = np.searchsorted(replaced.cells, np.arange(len(drawn) + 1))
        arrays = block, rows[drawn], starts, replaced.slots, replaced.genes
        place = self._buckets.n_each, writer.buffers, writer.filled
        at = 0
        while at < len(drawn):
            at, full = sort_block(*arrays, at, *place)
            if at < len(drawn):
                writer.flush(full)
