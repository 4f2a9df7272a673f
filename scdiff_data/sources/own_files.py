"""The user's own files, wherever they lie: found, named, and known again when they change."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from scdiff_data.base import digest
from scdiff_data.reading import FileKind, is_10x, tell_kind
from scdiff_data.sources.source import Bucket

_PATTERN = re.compile(r"[*?\[]")
"""What a path has that stands for many."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
"""What an experiment's id may not have: it becomes a file's name."""

MOST_LETTERS = 150
"""Letters of an experiment's id, which becomes a file's name."""

_ZARR = re.compile(r"(.*?\.zarr)/.*")
"""A file of a zarr."""

_MATE = re.compile(r"(barcodes|features|genes)\.tsv(\.gz)?$")
"""What lies beside a `matrix.mtx`."""

_RANGE = 1 << 16
"""Bytes of each range that a file is known by."""

_VERSIONS = ("etag", "ETag", "crc32c", "md5Hash", "generation", "mtime", "LastModified")
"""What file systems say of a remote file that changes with it."""

_N_RANGES = 8
"""Ranges, from the file's start to its end."""


Paths = str | Path | Sequence[str | Path]
"""One path, or many."""


@dataclass(frozen=True)
class OwnFile:
    """One file.

    Parameters
    ----------
    experiment_id
        Its name without suffix; with its folders where two files have the same; made safe.
    path
        Its path relative to the root.
    size
        Bytes; None where the file system does not say.
    version
        What tells it from a changed one: a digest of its size, its time of change and some ranges
        of a local file; of a remote one what its file system says of it.
    kind
        What it is.
    """

    experiment_id: str
    path: str
    size: int | None
    version: str
    kind: FileKind

    @property
    def converted(self) -> str:
        """Name of the h5ad that a file of another kind is made into."""
        return f"{self.experiment_id}.{self.version}.h5ad"


def find_files(
    path: Paths, storage_options: dict[str, Any]
) -> tuple[Bucket, list[OwnFile], list[str]]:
    """Find the files that a path names.

    Parameters
    ----------
    path
        A file, a folder (looked through with its folders), a pattern with `*`, or a list of these;
        `~` is the home folder; local, or an fsspec URL.
    storage_options
        Options for the file system of a URL.

    Returns
    -------
    bucket
        The root that paths are relative to.
    files
        The files, in the order of their paths.
    others
        Names of files beside them that are not read.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If a list mixes file systems.
    """
    given = list_paths(path)
    if not given:
        raise FileNotFoundError("source.path is an empty list: name a file, a folder or a pattern")
    here = is_local(given)
    if not here and not all("://" in one for one in given):
        raise ValueError(f"source.path mixes local paths and URLs: {given}")
    if here:
        given = [os.path.normpath(Path(p).expanduser().absolute()) for p in given]
    kinds: dict[str, FileKind] = {}
    others: set[str] = set()
    for one in given:
        system, path = Bucket(one, storage_options).connect()
        for name in _expand(system, path, one):
            kind = tell_kind(name)
            is_read = kind == "h5ad" or (here and kind is not None)
            if is_read and kind == "10x h5":
                is_read = is_10x(Path(name))
            if kind is not None and is_read:
                kinds[name] = kind
            else:
                others.add(_last(name))
    if not kinds:
        beside = f"; it has {', '.join(sorted(others)[:5])}" if others else ""
        raise FileNotFoundError(
            f"no *.h5ad file in {', '.join(given)}{beside}, nor a 10x matrix or *.zarr on a local "
            "disk: set source.path to a file, a folder or a pattern that has some"
        )
    found = sorted(kinds)
    root = _common_folder(found)
    paths = [name[len(root) :].lstrip("/") for name in found]
    files = []
    for experiment_id, path, name in zip(_name_experiments(paths), paths, found, strict=True):
        size, version = _know(system, name, kinds[name], is_local=here)
        files.append(OwnFile(experiment_id, path, size, version, kinds[name]))
    is_whole = here or "://" in root
    url = root if is_whole else f"{given[0].split('://')[0]}://{root}"
    return Bucket(url, storage_options), files, sorted(others)


def list_paths(path: Paths) -> list[str]:
    """One path or many as a list of texts."""
    return [str(path)] if isinstance(path, str | Path) else [str(one) for one in path]


def is_local(path: Paths) -> bool:
    """Whether a path, or each of a list, is on this machine's disks."""
    return not any("://" in p for p in list_paths(path))


def name_experiment(file: str, unit: str | None) -> str:
    """Id of an experiment: the file's, and its value in the file, made safe; told apart by a hash.

    Two values that differ only in what is not safe get ids of their own.
    """
    if unit is None:
        return file
    safe = _UNSAFE.sub("_", unit)
    return f"{file}.{safe}" if safe == unit else f"{file}.{safe}-{digest([unit])[:6]}"


def _expand(system: Any, path: str, given: str) -> list[str]:
    """Files that one path names; below it, what begins with a dot is no file of the user's."""
    is_there = system.exists(path)
    if is_there and not system.isdir(path):
        return [path]
    below = len(path)
    if is_there:
        found = _list_folder(system, path, given)
    elif _PATTERN.search(path):
        below = len(_PATTERN.split(path)[0].rsplit("/", 1)[0])
        found = []
        for name in system.glob(path):
            found += _list_folder(system, name, given) if system.isdir(name) else [name]
        if not found:
            raise FileNotFoundError(
                f"no *.h5ad file in {given}, nor another: set source.path to a file, a folder or "
                "a pattern that has some"
            )
    else:
        raise FileNotFoundError(
            f"source.path={given}: no such file or folder: set it to a file, a folder or a pattern"
        )
    folded = dict.fromkeys(_ZARR.sub(r"\1", name) for name in found)  # a zarr is a folder of files
    return [
        name
        for name in folded
        if not any(part.startswith(".") for part in name[below:].split("/"))
        and not (_MATE.search(name) and _has_matrix(name, folded))
    ]


def _list_folder(system: Any, path: str, given: str) -> list[str]:
    """All files below a folder; on a local disk, below links to folders, too."""
    if not is_local(given):
        return list(system.find(path))
    walked = os.walk(path, followlinks=True)
    return sorted(f"{folder}/{name}" for folder, _, names in walked for name in names)


def _has_matrix(name: str, names: Mapping[str, None]) -> bool:
    """Whether one of the files of 10x stands beside its matrix, and is read with it."""
    start = _MATE.sub("", name)
    return any(f"{start}matrix.mtx{end}" in names for end in ("", ".gz"))


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _common_folder(names: list[str]) -> str:
    """The deepest folder that all files are below; a URL keeps its two slashes."""
    folders = [name.split("/")[:-1] for name in names]
    common = folders[0]
    for parts in folders[1:]:
        n_same = 0
        while n_same < min(len(common), len(parts)) and common[n_same] == parts[n_same]:
            n_same += 1
        common = common[:n_same]
    return "/".join(common)


def _stem(path: str) -> str:
    """A file's name without suffix; of a `matrix.mtx` what stands before it, or its folder."""
    last = PurePosixPath(path).name
    if tell_kind(last) != "10x mtx":
        return PurePosixPath(path).stem
    before = last.split("matrix.mtx")[0].rstrip("_.-")
    return before or PurePosixPath(path).parent.name or "matrix"


def _name_experiments(paths: list[str]) -> list[str]:
    """Ids by the files' names, with their folders where names repeat; safe, and each once."""
    stems = [_stem(path) for path in paths]
    n_of = Counter(stems)
    ids: dict[str, None] = {}
    for path, stem in zip(paths, stems, strict=True):
        name = stem if n_of[stem] == 1 else str(PurePosixPath(path).with_suffix(""))
        unique = safe = _UNSAFE.sub("_", name).lstrip(".-")[:MOST_LETTERS] or "file"
        number = 2
        while unique in ids:
            unique, number = f"{safe}_{number}", number + 1
        ids[unique] = None
    return list(ids)


def _know(system: Any, name: str, kind: FileKind, *, is_local: bool) -> tuple[int | None, str]:
    """A file's size, and what tells it from a changed one."""
    if not is_local:
        info = system.info(name)
        said = [(key, str(info[key])) for key in _VERSIONS if key in info]
        return info.get("size"), digest([info.get("size"), said])
    path = Path(name)
    members = [path]
    if kind == "zarr":
        members = sorted(member for member in path.rglob("*") if member.is_file())
    elif kind == "10x mtx":
        members = sorted(m for m in path.parent.iterdir() if m == path or _MATE.search(m.name))
    if not path.exists():  # a link to nowhere
        return None, digest([name])
    status = [(str(m.relative_to(path.parent)), m.stat()) for m in members]
    found = hashlib.sha256(repr([(n, s.st_size, s.st_mtime_ns) for n, s in status]).encode())
    n_bytes = sum(s.st_size for _, s in status)
    if path.is_file():
        own = path.stat()
        found.update(_read_ranges(path, own.st_size, own.st_mtime_ns, own.st_ctime_ns))
    return n_bytes, found.hexdigest()[:16]


@lru_cache(maxsize=1 << 16)
def _read_ranges(path: Path, size: int, *changed: int) -> bytes:
    """Digest of a file's ranges; a run asks several times, and reads those that changed."""
    del changed
    found = hashlib.sha256()
    with path.open("rb") as file:
        for i in range(_N_RANGES):
            file.seek(max(size - _RANGE, 0) * i // (_N_RANGES - 1))
            found.update(file.read(_RANGE))
    return found.digest()
