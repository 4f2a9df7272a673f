"""The catalog's experiments, one by one and in the order of a draw.

A catalog may have more of them than fit into memory as objects: a row is made when it is asked for.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from mmap import ACCESS_READ, mmap
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scdiff_data.base import Places, cut, digest, explain_damage, hash_texts, order_by_hash

CATALOG_COLUMNS = ["experiment_id", "path", "n_cells", "size", "checksum"]
"""What every catalog has; a snapshot that was taken with others is taken anew."""

PIECE_ROWS = 1 << 14
"""Rows of a large table that are in memory at a time."""

_IN_MEMORY = 1 << 22
"""Bytes that a table has at the most to be kept in memory."""


@dataclass(frozen=True, slots=True)
class CatalogRow:
    """An experiment, as the catalog has it.

    Parameters
    ----------
    experiment_id
        Its id.
    path
        Its h5ad file, relative to the source's url.
    n_cells
        Cells in that file.
    size, checksum
        Bytes of that file, and `md5:HEX` or `crc32c:HEX` of them; None where the source does not
        say.
    columns
        Every column of the catalog, these among them: what filters and labels may name.
    """

    experiment_id: str
    path: str
    n_cells: int
    size: int | None
    checksum: str | None
    columns: Mapping[str, Any]

    @property
    def local_name(self) -> str:
        """Name of the fetched file, which many experiments may be in."""
        is_shared = self.columns.get("unit") is not None
        return f"{digest([self.path]) if is_shared else self.experiment_id}.h5ad"


class _Columns(Mapping[str, Any]):
    """A row's columns, made when they are asked for: most of many thousand rows never are."""

    __slots__ = ("_columns", "_row")

    def __init__(self, columns: Mapping[str, pa.ChunkedArray], row: int) -> None:
        self._columns, self._row = columns, row

    def __getitem__(self, name: str) -> Any:
        return self._columns[name][self._row].as_py()

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # the row alone, not the catalog


class Rows(Mapping[str, CatalogRow]):
    """The rows of a catalog by their experiment, in its order; each is made when it is asked for.

    Parameters
    ----------
    table
        The catalog.

    Attributes
    ----------
    ids
        Its experiments, as a column.
    """

    def __init__(self, table: pa.Table) -> None:
        self._columns = dict(zip(table.column_names, table.columns, strict=True))
        self.ids = self._columns["experiment_id"]

    def __getitem__(self, name: str) -> CatalogRow:
        if (place := self.find(name)) is None:
            raise KeyError(name)
        return self.at(place)

    def __iter__(self) -> Iterator[str]:
        for part in cut(self.ids):
            yield from part.to_pylist()

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, name: str) -> int | None:
        """An experiment's place in the catalog; None if it is not there."""
        hashes, places = self._index
        text = name.encode(errors="replace").decode()  # a file may have any name
        (wanted,) = hash_texts(pa.chunked_array([[text]]))
        first, last = np.searchsorted(hashes, wanted), np.searchsorted(hashes, wanted, "right")
        found = (p for p in places[first:last].tolist() if self.ids[p].as_py() == name)
        return next(found, None)

    def at(self, place: int) -> CatalogRow:
        """The row at a place."""
        columns = _Columns(self._columns, place)
        return CatalogRow(**{name: columns[name] for name in CATALOG_COLUMNS}, columns=columns)

    def draw(self, seed: int) -> "DrawOrder":
        """The rows in the order of a draw."""
        return DrawOrder(self, order_by_hash(self.ids, seed=seed, purpose="draw"))

    @cached_property
    def _index(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Hashes of the ids, ascending, and their places."""
        hashes = hash_texts(self.ids)
        places = np.argsort(hashes)
        return hashes[places], places


@dataclass(frozen=True)
class DrawOrder(Sequence[CatalogRow]):
    """The rows of a catalog in the order of a draw; each is made when it is asked for.

    Parameters
    ----------
    rows
        The rows.
    places
        Their places in the catalog.
    """

    rows: Rows
    places: Places

    @overload
    def __getitem__(self, at: int) -> CatalogRow: ...

    @overload
    def __getitem__(self, at: slice) -> "DrawOrder": ...

    def __getitem__(self, at: int | slice) -> "CatalogRow | DrawOrder":
        if isinstance(at, slice):
            return DrawOrder(self.rows, self.places[at])
        return self.rows.at(int(self.places[at]))

    def __len__(self) -> int:
        return len(self.places)

    def find(self, names: Iterable[str]) -> dict[str, int]:
        """Where some experiments stand, of those that the catalog has."""
        if not (found := {n: p for n in names if (p := self.rows.find(n)) is not None}):
            return {}
        rank = np.empty_like(self.places)
        rank[self.places] = np.arange(len(rank))
        return {name: int(rank[place]) for name, place in found.items()}


def read_aside(path: Path) -> pa.Table:
    """Read what `write_parquet` wrote, as `keep_aside` keeps it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        If it is damaged.
    """
    with (
        explain_damage(path),
        pq.ParquetFile(path, page_checksum_verification=True, buffer_size=1 << 20) as file,
    ):
        schema = file.schema_arrow
        schema.names  # noqa: B018 - which are texts, too
        return keep_aside(map(_validate, file.iter_batches(PIECE_ROWS)), schema, path.parent)


def _validate(batch: pa.RecordBatch) -> pa.RecordBatch:
    batch.validate(full=True)
    return batch


def keep_aside(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path) -> pa.Table:
    """A table of batches that never stand in memory together.

    What passes a few megabytes lies in a file of the folder that has no name, is gone with the
    table, and is mapped: its pages are dropped when memory is short. Where the folder may only be
    read, as that of a finished directory, it is the system's folder of temporary files.
    """
    source, first, n_bytes = iter(batches), [], 0
    for batch in source:
        first.append(batch)
        n_bytes += batch.nbytes
        if n_bytes > _IN_MEMORY:
            break
    else:
        return pa.Table.from_batches(first, schema)
    with _open_nameless(folder) as file:
        with pa.ipc.new_stream(file, schema) as writer:
            while first:
                writer.write(first.pop(0))
            for batch in source:
                writer.write(batch)
        file.flush()
        content = mmap(file.fileno(), 0, access=ACCESS_READ)
    return pa.ipc.open_stream(pa.py_buffer(content)).read_all()


def _open_nameless(folder: Path) -> IO[bytes]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return TemporaryFile(dir=folder)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return TemporaryFile()


def choose_rows(table: pa.Table, keep: NDArray[np.bool_], folder: Path) -> pa.Table:
    """Rows of a table, as `keep_aside` keeps them; all of them are the table itself."""
    if keep.all():
        return table

    def choose() -> Iterator[pa.RecordBatch]:
        at = 0
        for batch in table.to_batches(PIECE_ROWS):
            yield batch.filter(pa.array(keep[at : at + len(batch)]))
            at += len(batch)

    return keep_aside(choose(), table.schema, folder)
