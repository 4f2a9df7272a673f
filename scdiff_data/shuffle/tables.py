"""The rows of a table to their places, by way of the disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_MOST_BUCKETS = 256
"""Files open at a time."""

_MOST_BYTES = 1 << 30
"""Bytes that leave together, about: texts of more than twice as many would not fit their type."""

_PLACE = "place"
"""The column that rows are sorted by, beside those of the table."""


class TableSorter:
    """A table whose rows come in any order and leave in that of their places; a context manager.

    Parts of it are appended to files, each for a run of places; a file is later sorted in memory.

    Parameters
    ----------
    folder
        Where the files lie; what else is there is deleted.
    schema
        Of the table.
    n_rows
        Rows in all.
    n_each
        Rows that leave together; memory is for these, or for a 256th of all.
    """

    def __init__(self, folder: Path, schema: pa.Schema, *, n_rows: int, n_each: int) -> None:
        self._folder = folder
        self._schema = schema.append(pa.field(_PLACE, pa.int64()))
        self._n_each = n_each
        self._n_bucket = -(-n_rows // (_MOST_BUCKETS * n_each)) * n_each
        self._n_rows = n_rows
        self._writers: list[pa.RecordBatchStreamWriter] = []

    def __enter__(self) -> "TableSorter":
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._writers = [
            pa.ipc.new_stream(self._path(bucket), self._schema)
            for bucket in range(-(-self._n_rows // self._n_bucket))
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in self._writers:
            writer.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, rows: pa.Table, places: NDArray[np.integer[Any]]) -> None:
        """Add rows, whose places in the whole are these."""
        order = np.argsort(places, kind="stable")
        sorted_places = places[order].astype(np.int64)
        rows = rows.append_column(_PLACE, pa.array(places.astype(np.int64))).take(order)
        buckets = sorted_places // self._n_bucket
        starts = np.flatnonzero(np.diff(buckets, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            self._writers[buckets[start]].write_table(rows.slice(start, stop - start))

    def read(self) -> Iterator[tuple[int, pa.Table]]:
        """The rows in their order, at most `n_each` at a time: the place of the first, and all."""
        for bucket, writer in enumerate(self._writers):
            writer.close()
            with pa.OSFile(str(self._path(bucket))) as file:
                rows = pa.ipc.open_stream(file).read_all().combine_chunks()
            self._path(bucket).unlink()
            order = pc.sort_indices(rows[_PLACE])
            rows = rows.drop_columns([_PLACE])
            n = min(self._n_each, max(1, _MOST_BYTES * len(rows) // rows.nbytes))
            # Copies, not slices: a slice's texts keep the offsets that they have in the whole.
            for start in range(0, len(rows), n):
                yield bucket * self._n_bucket + start, rows.take(order.slice(start, n))

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{bucket:03d}.arrow"
