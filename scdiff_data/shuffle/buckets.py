"""Cells of the archives on their way to their places in the shards: sorted into buckets on disk.

The order of the shards is a shuffle, the archives are read from front to back. So each cell's
packed row is appended to the bucket of its place, a file for a run of shards; a bucket is later
read as a whole, and its cells are put in order in memory.

    archives, front to back          sorting/                      shards
    E1  0 1 2 3 4 …                  00000   cells of shards 0-15    batch_0000.h5 …
    E2  0 1 2 …              ──▶     00001   cells of shards 16-31   …
    E3  …                            done.json                       in order, without a seek

Where other processes sort, each fills files of its own for a part of the archives, such as
`sorting/part_000/00000`; a bucket is then all of these.

A bucket is a sequence of records, each starts at a multiple of four bytes:

    row in the bucket, bytes packed, places replaced   uint32 each
    packed row                                         see `packing.py`
    slot, gene                                         int32 each, of every place replaced
"""

import errno
import json
import shutil
from pathlib import Path
from threading import Lock
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import at_address, compiled, open_in_place, write_json
from scdiff_data.shuffle.packing import PackedRows

HEADER_BYTES = 12
"""Bytes of a record before its packed row."""


class Buckets:
    """The files of all buckets.

    Parameters
    ----------
    folder
        Where they lie; what else is there is deleted.
    key
        Of what is sorted. Buckets of a run that was killed after it had sorted all are used again
        under the same key.
    n_rows, n_each
        Rows in all, and in each bucket but the last.
    """

    def __init__(self, folder: Path, key: str, *, n_rows: int, n_each: int) -> None:
        self._folder = folder
        self.n_rows = n_rows
        self.n_each = n_each
        self.n = -(-n_rows // n_each)
        self._state = {"key": key, "n_each": n_each}
        self._lock = Lock()

    @property
    def _done(self) -> Path:
        return self._folder / "done.json"

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{bucket:05d}"

    def part(self, number: int) -> Path:
        """Where buckets lie that another process filled with a part of the cells."""
        return self._folder / f"part_{number:03d}"

    def _files(self, bucket: int) -> list[Path]:
        """The files of a bucket: one, or one of each part."""
        own, name = self._path(bucket), self._path(bucket).name
        return [*([own] if own.exists() else []), *self._folder.glob(f"part_*/{name}")]

    def _size(self, bucket: int) -> int:
        return sum(path.stat().st_size for path in self._files(bucket))

    def open(self, wanted: NDArray[np.bool_]) -> bool:
        """Whether all wanted buckets are there; if not, begin anew."""
        try:
            done = json.loads(self._done.read_text("utf-8"))
            sizes = {bucket: self._size(bucket) for bucket in np.flatnonzero(wanted).tolist()}
            is_same = {name: done[name] for name in self._state} == self._state
            if is_same and all(done["sizes"][bucket] == size for bucket, size in sizes.items()):
                return True
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            pass
        self.remove()
        self._folder.mkdir(parents=True)
        return False

    def append(self, bucket: int, records: NDArray[np.uint8]) -> None:
        """Add records to a bucket; from any thread."""
        left = memoryview(records.data)
        with self._lock, open_in_place(self._path(bucket), append=True) as file:
            while left:
                left = left[file.write(left) :]

    def finish(self) -> None:
        """All cells are sorted."""
        sizes = [self._size(bucket) for bucket in range(self.n)]
        write_json(self._done, self._state | {"sizes": sizes})

    def read(self, bucket: int) -> PackedRows:
        """A bucket's records, found by row.

        Raises
        ------
        OSError
            If a row is missing: the disk lost what was written.
        """
        n = min(self.n_each, self.n_rows - bucket * self.n_each)
        content, at = np.empty(self._size(bucket), np.uint8), 0
        for path in self._files(bucket):
            with path.open("rb", buffering=0) as file:
                while n_read := file.readinto(memoryview(content[at:].data)):
                    at += n_read
        where, size, n_replaced = (
            np.full(n, -1, np.int64),
            np.zeros(n, np.int64),
            np.zeros(n, np.int64),
        )
        _find_records(content, where, size, n_replaced)
        if (where < 0).any():
            self._done.unlink(missing_ok=True)
            raise OSError(errno.EIO, f"{self._path(bucket)} lost rows: run the same command again")
        return PackedRows(content, where, size, n_replaced)

    def drop(self, bucket: int) -> None:
        """Delete a bucket that is in its shards."""
        for path in self._files(bucket):
            path.unlink()

    def remove(self) -> None:
        """Delete all."""
        # First what says that they are complete: a kill in between leaves no half of them.
        self._done.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)


class BucketWriter:
    """A thread's buffers, one a bucket.

    Parameters
    ----------
    buckets
        Where full buffers go.
    n_bytes
        Of a buffer: at least two records.

    Attributes
    ----------
    buffers
        uint8 [n_buckets, n_bytes].
    filled
        Bytes used of each, int64 [n_buckets].
    """

    def __init__(self, buckets: Buckets, n_bytes: int) -> None:
        self._buckets = buckets
        self.buffers = np.empty((buckets.n, n_bytes), np.uint8)
        self.filled = np.zeros(buckets.n, np.int64)

    def flush(self, bucket: int) -> None:
        """Append a buffer to its bucket."""
        if self.filled[bucket]:
            self._buckets.append(bucket, self.buffers[bucket, : self.filled[bucket]])
            self.filled[bucket] = 0

    def close(self) -> None:
        """Append all."""
        for bucket in range(self._buckets.n):
            self.flush(bucket)


@compiled
def start_record(buffer: NDArray[Any], at: int, row: int, end: int, n_replaced: int) -> int:
    """In compiled code: write the header of a row packed up to `end`; gives the place after it."""
    header = numba.carray(at_address(buffer.ctypes.data + at), 3, np.uint32)
    header[0], header[1], header[2] = row, end - at - HEADER_BYTES, n_replaced
    return (end + 3) // 4 * 4


@compiled
def _find_records(
    content: NDArray[Any], where: NDArray[Any], size: NDArray[Any], n_replaced: NDArray[Any]
) -> None:
    at = np.int64(0)
    while at + HEADER_BYTES <= len(content):
        header = numba.carray(at_address(content.ctypes.data + at), 3, np.uint32)
        row, n_bytes, n_others = np.int64(header[0]), np.int64(header[1]), np.int64(header[2])
        end = at + HEADER_BYTES + (n_bytes + 3) // 4 * 4 + 8 * n_others
        if row >= len(where) or end > len(content):
            return
        where[row], size[row], n_replaced[row] = at + HEADER_BYTES, n_bytes, n_others
        at = end
