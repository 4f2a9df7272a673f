"""`config.json`: what a data directory holds and how it was made. It is written last.

A directory without it is not finished; one whose files differ from it is damaged.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scdiff_data.base import FileEntry, find_change, read_sealed, write_sealed
from scdiff_data.constants import SPLITS
from scdiff_data.errors import ManifestError
from scdiff_data.store.fields import read_value
from scdiff_data.store.fingerprint import SCHEMA_VERSION, digest_settings, list_packages
from scdiff_data.store.layout import DataDirectory
from scdiff_data.store.locking import is_being_prepared

_SHA256 = re.compile("[0-9a-f]{64}")
"""A checksum of a file."""

_KEY = re.compile("[0-9a-f]{16}")
"""What shards were made from, as `digest` gives it."""


@dataclass(frozen=True)
class GeneCounts:
    """The genes of a data directory.

    Parameters
    ----------
    n_reference, reference_digest
        Genes of the reference axis, and their fingerprint.
    n_chosen, n_absent, chosen_digest
        Genes that the shards hold, how many of them the data lack, and their fingerprint.
    """

    n_reference: int
    reference_digest: str
    n_chosen: int
    n_absent: int
    chosen_digest: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A finished data directory.

    Parameters
    ----------
    data_dir
        The directory.
    recipe, recipe_digest
        Every setting, as `Recipe.settings` gave them, and their fingerprint.
    catalog_digest
        SHA-256 of the catalog's snapshot.
    genes
        The reference genes and the chosen ones.
    n_cells, n_experiments
        Cells in each split, and experiments that these are from: `train`, `val`, `test`.
    shards_key
        Fingerprint of the settings and archives that the shards were made from; each holds it.
    shard_format
        How counts lie in the shards, `dense` or `compact`.
    dropped
        What is missing from the shards or was changed on the way, see `sum_dropped`.
    files
        Every file that belongs to the data.
    packages
        Versions of Python and of the packages that wrote them.
    """

    data_dir: Path
    recipe: Mapping[str, Any]
    recipe_digest: str
    catalog_digest: str
    genes: GeneCounts
    n_cells: Mapping[str, int]
    n_experiments: Mapping[str, int]
    shards_key: str
    shard_format: str
    dropped: Mapping[str, int]
    files: tuple[FileEntry, ...]
    packages: Mapping[str, str] = field(default_factory=list_packages)

    @classmethod
    def read(cls, folder: str | Path) -> "Manifest":
        """Read the manifest of a data directory, named by itself or by its `processed` folder.

        Raises
        ------
        FileNotFoundError
            If the directory was not prepared, or is being prepared by another process.
        ManifestError
            If the manifest is damaged, or of another schema version.
        """
        directory = DataDirectory(Path(folder))
        above = DataDirectory(directory.path.parent)
        if not directory.manifest.exists() and directory.path.name == above.shards.name:
            directory = above
        path = directory.manifest
        try:
            return cls._parse(directory, path)
        except FileNotFoundError:  # another run may take it away between a look and the reading
            pass
        if is_being_prepared(directory):
            raise FileNotFoundError(
                f"another process prepares {folder}, which is not finished: wait for it, or "
                "call prepare(recipe, data_dir), which waits"
            )
        way_out = "call prepare(recipe, data_dir) or datamodule.prepare_data(), or run "
        way_out += "'scdiff-data prepare'"
        if directory.downloaded.exists():
            way_out = "stages=download is done; prepare the rest with stages=process, offline"
        raise FileNotFoundError(f"no shards in {folder}: {path.name} is missing; {way_out}")

    @classmethod
    def read_replaced(cls, directory: DataDirectory) -> "Manifest | None":
        """Read what `mark_unfinished` kept, if the work that was to replace it was cut off."""
        path = directory.replaced
        return cls._parse(directory, path) if path.exists() else None

    @classmethod
    def _parse(cls, directory: DataDirectory, path: Path) -> "Manifest":
        def of(name: str, kind: Any) -> Any:
            return read_value(kind, content[name], name)

        try:
            content = {"shard_format": "dense", **read_sealed(path)}
            found = of("schema_version", int) if "schema_version" in content else "none"
            if found == SCHEMA_VERSION:
                manifest = cls(
                    data_dir=directory.path,
                    recipe=of("recipe", Mapping[str, Any]),
                    recipe_digest=of("recipe_digest", str),
                    catalog_digest=of("catalog_digest", str),
                    genes=of("genes", GeneCounts),
                    n_cells=of("cells", Mapping[str, int]),
                    n_experiments=of("experiments", Mapping[str, int]),
                    shards_key=of("shards_key", str),
                    shard_format=of("shard_format", str),
                    dropped=of("dropped", Mapping[str, int]),
                    files=of("files", tuple[FileEntry, ...]),
                    packages=of("packages", Mapping[str, str]),
                )
                manifest._check()
                return manifest
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise ManifestError(
                f"{path} is damaged ({kind}{error}): delete it and prepare again; nothing is "
                "downloaded twice"
            ) from error
        raise ManifestError(
            f"{path} has schema_version {found}, this scdiff_data reads {SCHEMA_VERSION}: "
            "prepare again in a new directory"
        )

    def _check(self) -> None:
        """Raise ValueError for what cannot be together, and for files outside the directory."""
        if digest_settings(self.recipe) != self.recipe_digest:
            raise ValueError("recipe is not what recipe_digest was taken of")
        if self.shard_format not in ("dense", "compact"):
            raise ValueError(f"shard_format is {self.shard_format!r}, not dense or compact")
        for name, found in (("cells", self.n_cells), ("experiments", self.n_experiments)):
            if found.keys() != set(SPLITS):
                raise ValueError(f"{name} is of {list(found)}, not of {list(SPLITS)}")
        if not _KEY.fullmatch(self.shards_key):
            raise ValueError(f"shards_key is {self.shards_key!r:.80}, not 16 hex digits")
        paths = [entry.path for entry in self.files]
        for entry in self.files:
            path = entry.path
            if not {"", ".", ".."}.isdisjoint(path.split("/")) or "\0" in path:
                raise ValueError(f"files lists {path!r}, which is no file of the directory")
            if not _SHA256.fullmatch(entry.sha256):
                raise ValueError(f"files says that {path} has the sha256 {entry.sha256!r:.80}")
        if len(set(paths)) < len(paths):
            raise ValueError("files lists one twice")
        if self.shard_size < 1:
            raise ValueError(f"recipe.shard_size is {self.shard_size}, not at least 1")
        n_cells, shards = sum(self.n_cells.values()), self.shard_entries
        if len(shards) != (n := -(-n_cells // self.shard_size)):
            raise ValueError(f"cells are {n_cells}, in {n} shards, files lists {len(shards)}")
        directory = self.directory
        for number, entry in enumerate(shards):
            if not entry.path.endswith(f"/{directory.shard(number).name}"):
                raise ValueError(f"files lists {entry.path} in the place of another shard")

    def write(self) -> None:
        """Write `config.json`: the directory is finished."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "recipe": self.recipe,
            "recipe_digest": self.recipe_digest,
            "catalog_digest": self.catalog_digest,
            "genes": asdict(self.genes),
            "cells": self.n_cells,
            "experiments": self.n_experiments,
            "shards_key": self.shards_key,
            "shard_format": self.shard_format,
            "dropped": self.dropped,
            "files": [asdict(entry) for entry in self.files],
            "packages": self.packages,
        }
        write_sealed(self.directory.manifest, content)
        self.directory.replaced.unlink(missing_ok=True)

    @property
    def directory(self) -> DataDirectory:
        """What lies where."""
        return DataDirectory(self.data_dir)

    @property
    def shard_size(self) -> int:
        """Cells in each shard but the last."""
        return int(self.recipe["shard_size"])

    @property
    def shard_entries(self) -> list[FileEntry]:
        """What the files of the shards hold, in their order."""
        folder = self.directory.shards.name
        return [entry for entry in self.files if entry.path.rpartition("/")[0] == folder]

    @property
    def shards(self) -> list[Path]:
        """The shards in their order."""
        return [self.data_dir / entry.path for entry in self.shard_entries]

    def check_unchanged(self) -> None:
        """Make sure that what was opened since the manifest was read is what it describes.

        Raises
        ------
        ManifestError
            If another run began to replace it meanwhile.
        """
        try:
            is_same = self.read(self.data_dir) == self
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise ManifestError(
                f"{self.data_dir} was replaced by another run of prepare while it was opened: open "
                "it again, and give settings that differ a data_dir each"
            )

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Let what goes wrong while files are opened be the other run's doing, if there is one."""
        try:
            yield
        except (FileNotFoundError, ManifestError):
            self.check_unchanged()
            raise

    def check_files(self, *folders: Path, full: bool = False) -> None:
        """Compare the files in some folders, or all files, with the manifest.

        Parameters
        ----------
        folders
            The folders; none are all.
        full
            Whether every byte is read; else only sizes are looked at.

        Raises
        ------
        ManifestError
            If a file is missing, has another size, or with `full` other bytes.
        """
        for entry in self.files:
            if not folders or (self.data_dir / entry.path).parent in folders:
                self.check_file(entry, full=full)

    def check_file(self, entry: FileEntry, *, full: bool) -> None:
        """Compare one of `files`, as `check_files` does; a copy need not have it."""
        path, name = self.data_dir / entry.path, self.directory.manifest.name
        if found := find_change(entry, self.data_dir, by=name, full=full):
            way_out = f"delete {path} and {name}, and prepare again; what is whole stays"
            if self.directory.bucket.exists():
                if not path.exists():
                    return  # it comes when it is needed
                way_out = f"delete {path} and run the same command, which fetches it again"
            raise ManifestError(f"{path} {found}: {way_out}")


def mark_unfinished(directory: DataDirectory, *, keep: bool = False) -> None:
    """Mark a directory as unfinished: no manifest stands beside files that it does not describe.

    With `keep` the manifest is set aside, for `read_replaced` to go on from.
    """
    if not keep:
        directory.replaced.unlink(missing_ok=True)
        directory.manifest.unlink(missing_ok=True)
    elif directory.manifest.exists():
        directory.manifest.replace(directory.replaced)
