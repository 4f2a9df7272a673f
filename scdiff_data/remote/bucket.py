"""What lies where in a bucket of prepared data, and how it is read."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from scdiff_data.base import FileEntry
from scdiff_data.errors import ManifestError
from scdiff_data.fetching import OF_BUCKETS, check_reachable, connect, explain_refusals
from scdiff_data.store import DataDirectory, Manifest

INDEX = DataDirectory(Path()).manifest.name
"""The object that says which files there are; put last."""

_OBJECT = re.compile(r"(processed/|metadata/)?[^/]+\.[0-9a-f]{16}\.[a-z0-9]+(\.part)?")
"""Names of objects that we put beside it."""


def name_object(entry: FileEntry) -> str:
    """The object that holds a file: of other bytes, it is another one."""
    path = PurePosixPath(entry.path)
    return str(path.with_name(f"{path.stem}.{entry.sha256[:16]}{path.suffix}"))


def list_sent(manifest: Manifest) -> list[FileEntry]:
    """The files that a bucket holds: shards, tables and the choice of genes; no archives."""
    directory = manifest.directory
    kept = {directory.shards, directory.metadata, directory.hvg_info, directory.hvg_figure}
    paths = [(entry, manifest.data_dir / entry.path) for entry in manifest.files]
    return [entry for entry, path in paths if not kept.isdisjoint((path, path.parent))]


class PreparedBucket:
    """A bucket, or any place that fsspec knows, of prepared data.

    Credentials and endpoints are those of fsspec's own configuration and of the environment.

    Parameters
    ----------
    url
        `gs://BUCKET/PATH`, `s3://BUCKET/PATH`, `file://PATH`, …

    Raises
    ------
    ValueError
        If there is no such kind of url, or what it needs is not installed.
    """

    def __init__(self, url: str) -> None:
        if not isinstance(url, str) or not url:
            raise ValueError(
                f"processed_url must be a text, gs://BUCKET/PATH or file:///PATH, got {url!r}"
            )
        with explain_refusals(url, OF_BUCKETS.refusals):
            self.file_system, self.root = connect(url, {})
        protocols = self.file_system.protocol
        kinds = (protocols,) if isinstance(protocols, str) else tuple(protocols)
        self.is_local = "file" in kinds
        self.url = str(self.file_system.unstrip_protocol(self.root))

    def path(self, name: str) -> str:
        """An object's path in the file system."""
        return f"{self.root}/{name}"

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise DownloadError with advice for what is refused, at once if it is out of reach."""
        with explain_refusals(self.url, OF_BUCKETS.refusals):
            check_reachable(str(getattr(self.file_system, "_location", self.url)))
            yield

    def read_index(self) -> bytes | None:
        """The manifest as it lies there; None if there is none.

        Raises
        ------
        DownloadError
            If it cannot be read.
        """
        self.file_system.invalidate_cache()
        try:
            with self.explained():
                return bytes(self.file_system.cat_file(self.path(INDEX)))
        except FileNotFoundError:
            return None

    def read_manifest(self) -> Manifest | None:
        """The same, read, to be compared; None for one that is damaged, too."""
        index = self.read_index()
        try:
            return None if index is None else parse_index(index, Path(self.url), self.url)
        except ManifestError:
            return None

    def list_objects(self) -> dict[str, int]:
        """What we put there, but for the manifest: names, and bytes."""
        self.file_system.invalidate_cache()
        with self.explained():
            try:
                found: dict[str, dict[str, Any]] = self.file_system.find(self.root, detail=True)
            except FileNotFoundError:
                return {}
        known = {path.removeprefix(f"{self.root}/"): e["size"] for path, e in found.items()}
        return {name: size for name, size in known.items() if _OBJECT.fullmatch(name)}


def parse_index(index: bytes, data_dir: Path, url: str) -> Manifest:
    """The manifest that a bucket holds, as that of a directory.

    Raises
    ------
    ManifestError
        If it is damaged, or of another version.
    """
    with TemporaryDirectory() as folder:
        (Path(folder) / INDEX).write_bytes(index)
        try:
            return replace(Manifest.read(folder), data_dir=data_dir)
        except ManifestError as error:
            raise ManifestError(str(error).replace(folder, url)) from error
