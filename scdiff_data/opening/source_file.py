"""A file of anyone's, opened so that nothing leads out of it, fills the memory, or never ends.

An HDF5 file may lead to others, by links and by datasets whose values another file keeps: whoever
makes it chooses what is read. It may say of itself that it is larger than any memory. So files are
opened here alone, as a `SourceFile`: its heaps and objects are looked at first, and every read is
bounded.
"""

from collections.abc import Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import h5py
import numpy as np

from scdiff_data.base import identify_file
from scdiff_data.errors import CountError, UnsafeFileError
from scdiff_data.opening.heaps import WatchedStream, check_heaps
from scdiff_data.opening.known_texts import SIZES

ALLOWANCE = 1 << 30
"""Bytes that a read may take where no setting says it."""

LEAST_ALLOWANCE = 64 << 20
"""Bytes that a read may take however little memory is allowed: a chunk of the larger ones, or the
names of a million cells."""

_MOST_LINKS = 16
"""Soft links that the way to an object may lead over, as in HDF5 itself."""

_TEXTS_AT_ONCE = 1 << 14
"""Texts read at a time: how long they are is not known before."""

_WAY_OUT = (
    "copy the data into the file, e.g. with anndata.read_h5ad(...).write_h5ad(...), if you trust it"
)
"""What to do about a file that leads to others."""


class _Terms(NamedTuple):
    """What every object of a file knows of it.

    Parameters
    ----------
    name
        The file's name, for the errors.
    most
        Bytes that a read may take.
    """

    name: str
    most: int

    def refuse(self, place: str, problem: str) -> NoReturn:
        raise UnsafeFileError(f"{self.name} is refused: {place} {problem}")

    def check_bytes(self, place: str, what: str, n_bytes: int) -> None:
        if n_bytes > self.most:
            self.refuse(
                place,
                f"{what} {n_bytes:,} bytes, and {self.most:,} are allowed: if you trust the file, "
                "raise max_memory, and set retry_failed=true",
            )


def open_hdf5(path: Path, stream: Any = None, *, max_memory: int = ALLOWANCE) -> "SourceFile":
    """Open a file, or say that it is not HDF5.

    Parameters
    ----------
    path
        The file.
    stream
        Its bytes, where it is not on a local disk.
    max_memory
        Bytes that a read may take, but `LEAST_ALLOWANCE` at least.
    """
    try:
        terms = _Terms(path.name, max(max_memory, LEAST_ALLOWANCE))
        file = SourceFile(path if stream is None else WatchedStream(stream, path.name), terms)
    except OSError as error:
        if error.errno:  # this machine's fault, such as too many open files: not the file's
            raise
        raise CountError(f"{path.name} is not a readable h5ad file: {error}") from error
    try:
        if stream is None and file.id.get_create_plist().get_sizes() == SIZES:
            check_heaps(path, identify_file(path))
    except BaseException:
        file.close()
        raise
    return file


class _Looking:
    """A group that looks at what it gives, before it is opened and after."""

    id: Any
    name: Any
    _home: Any = None
    _terms: _Terms

    @property
    def file(self) -> Any:
        # A file that held itself would be collected in any thread, even in one that a read waits
        # for while it has HDF5's lock, which is what closing takes.
        return self if self._home is None else self._home

    def __getitem__(self, name: Any) -> Any:
        if isinstance(name, str | bytes):  # a reference stays in the file
            self._look(name)
        found = super().__getitem__(name)  # type: ignore[misc]
        if isinstance(found, h5py.Dataset):
            return SourceDataset(found.id, self.file)
        return SourceGroup(found.id, self.file) if isinstance(found, h5py.Group) else found

    def get(self, name: Any, default: Any = None) -> Any:
        with suppress(KeyError):
            return self[name]
        return default

    def __contains__(self, name: Any) -> bool:
        try:
            self._look(name)
        except UnsafeFileError:
            return True  # it is there, and cannot be had
        return bool(super().__contains__(name))  # type: ignore[misc]

    def get_kind(self, name: str) -> int:
        """What leads to a name of this group: a number of `h5py.h5l`."""
        return int(self.id.links.get_info(name.encode()).type)

    def _look(self, name: str | bytes) -> None:
        """Follow the way to an object, without a step out of the file."""
        path = name.encode() if isinstance(name, str) else name
        if problem := self._follow(self.id, path, iter(range(_MOST_LINKS))):
            place = f"{self.name or ''}/{path.decode(errors='replace')}"
            self._terms.refuse(place.strip("/").replace("//", "/"), problem)

    def _follow(self, at: Any, path: bytes, left: Iterator[int]) -> str | None:
        """Why a way is not to be gone; None if it may be, or leads to nothing."""
        if path.startswith(b"/"):
            at = h5py.h5g.open(self.id, b"/")
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        for number, part in enumerate(parts, 1):
            try:
                kind = at.links.get_info(part).type
                if kind == h5py.h5l.TYPE_SOFT:
                    if next(left, None) is None:
                        return "is behind more links than HDF5 follows"
                    if problem := self._follow(at, at.links.get_val(part), left):
                        return problem
                elif kind == h5py.h5l.TYPE_EXTERNAL:
                    other = at.links.get_val(part)[0].decode(errors="replace")
                    return f"is a link to another file, {other!r}: {_WAY_OUT}"
                elif kind != h5py.h5l.TYPE_HARD:
                    return f"is a link of a kind of its own: {_WAY_OUT}"
                if number < len(parts):
                    at = h5py.h5o.open(at, part)
            except (AttributeError, KeyError, RuntimeError):
                return None  # nothing is there: the library says what is missing
        return None


class SourceGroup(_Looking, h5py.Group):  # type: ignore[misc]
    """A group of a file of anyone's."""

    def __init__(self, identifier: Any, file: "SourceFile") -> None:
        super().__init__(identifier)
        self._home, self._terms = file, file._terms


class SourceFile(_Looking, h5py.File):  # type: ignore[misc]
    """A file of anyone's, made by `open_hdf5`."""

    def __init__(self, opened: Any, terms: _Terms) -> None:
        super().__init__(opened)
        self._terms = terms


class SourceDataset(h5py.Dataset):  # type: ignore[misc]
    """A dataset of a file of anyone's: its values are in the file, and a read is bounded.

    Raises
    ------
    UnsafeFileError
        If its values are in another file; where it is read, if that takes more than is allowed.
    """

    file: Any = None

    def __init__(self, identifier: Any, file: SourceFile) -> None:
        super().__init__(identifier, readonly=True)
        self.file, self._terms = file, (terms := file._terms)
        made = identifier.get_create_plist()
        layout = made.get_layout()
        if layout == h5py.h5d.VIRTUAL:
            terms.refuse(self._place, f"is a virtual dataset, made of others: {_WAY_OUT}")
        if layout == h5py.h5d.CONTIGUOUS and made.get_external_count():
            other = made.get_external(0)[0].decode(errors="replace")
            terms.refuse(self._place, f"has its values in another file, {other!r}: {_WAY_OUT}")
        self._chunk_bytes = 0
        if layout == h5py.h5d.CHUNKED and made.get_nfilters():  # a chunk is inflated as a whole
            self._chunk_bytes = prod(made.get_chunk()) * identifier.get_type().get_size()

    def __getitem__(self, args: Any, new_dtype: Any = None) -> Any:
        shape, kind = self.shape or (1,), self.dtype
        n_rows, first = shape[0], args[0] if isinstance(args, tuple) and args else args
        start, stop = 0, n_rows
        if isinstance(first, slice) and first.step in (None, 1):  # else all of it, at most
            start, stop, _ = first.indices(n_rows)
        n = max(stop - start, 0) * prod(shape[1:])
        self._check_read(n * kind.itemsize)
        if kind.kind != "O" or len(shape) != 1 or new_dtype is not None or n <= 1:
            return super().__getitem__(args, new_dtype)
        # Texts may all be the same one in the file, and are many once they are read.
        height = self.chunks[0] if self._chunk_bytes else 1
        step = -(-_TEXTS_AT_ONCE // height) * height
        parts, n_bytes = [], n * kind.itemsize
        for low in range(start, stop, step):
            parts.append(super().__getitem__(slice(low, min(low + step, stop))))
            n_bytes += sum(map(len, parts[-1].tolist()))
            self._terms.check_bytes(self._place, "has texts of more than", n_bytes)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @property
    def _place(self) -> str:
        return str(self.name or "an object without a name").strip("/")

    def check_whole(self) -> int:
        """Bytes that all of it takes, which may be read."""
        n_bytes = prod(self.shape or ()) * int(self.dtype.itemsize)
        self._check_read(n_bytes)
        return n_bytes

    def _check_read(self, n_bytes: int) -> None:
        terms = self._terms
        if max(n_bytes, self._chunk_bytes) > terms.most:
            terms.check_bytes(self._place, "has chunks of", self._chunk_bytes)
            what = f"has the shape {self.shape}: to read it takes"
            terms.check_bytes(self._place, what, n_bytes)


def check_allowance(element: Any, what: str, n_bytes: int) -> None:
    """Raise UnsafeFileError if what was read of an element takes more than is allowed."""
    element._terms.check_bytes(str(element.name).strip("/") or "all of it", what, n_bytes)


def release(element: Any) -> Any:
    """An element as h5py itself gives it, for other libraries, once all below it was looked at."""
    seen: set[int] = set()
    todo, n_bytes = [element], 0
    while todo:
        found = todo.pop()
        address = h5py.h5o.get_info(found.id).addr
        if address in seen:
            continue
        seen.add(address)
        if isinstance(found, SourceDataset):
            n_bytes += found.check_whole()
        elif isinstance(found, h5py.Group):
            todo += [found[name] for name in found]
    check_allowance(element, "takes", n_bytes)
    return (h5py.Group if isinstance(element, h5py.Group) else h5py.Dataset)(element.id)
