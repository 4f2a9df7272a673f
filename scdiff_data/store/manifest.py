"""`config.json`: what a data directory holds and how it was made. It is written last.

A directory without it is not finished; one whose files differ from it is damaged.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scdiff_data.base import write_json
from scdiff_data.errors import ManifestError
from scdiff_data.store.layout import DataDirectory

SCHEMA_VERSION = 1
"""Of the files on disk; data of another version are made anew."""

_PACKAGES = ("scdiff_data", "anndata", "h5py", "numpy", "pyarrow")


@dataclass(frozen=True)
class Manifest:
    """A finished data directory.

    Parameters
    ----------
    data_dir
        The directory.
    content
        `config.json` as read: `schema_version`, `recipe`, `recipe_digest`, `catalog_digest`,
        `genes`, `cells`, `dropped`, `files`, `packages`.
    """

    data_dir: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: str | Path) -> "Manifest":
        """Read the manifest of a data directory, named by itself or by its `processed` folder.

        Raises
        ------
        FileNotFoundError
            If the directory was not prepared.
        ManifestError
            If the manifest is not valid JSON, or of another schema version.
        """
        directory = DataDirectory(Path(folder))
        above = DataDirectory(directory.path.parent)
        if not directory.manifest.exists() and directory.path.name == above.shards.name:
            directory = above
        path = directory.manifest
        if not path.exists():
            raise FileNotFoundError(
                f"no shards in {folder}: {path.name} is missing; run 'python train.py "
                "prepare_only=true'"
            )
        try:
            content = json.loads(path.read_text("utf-8"))
            found = content["schema_version"]
        except (ValueError, TypeError, KeyError) as error:
            raise ManifestError(
                f"{path} is damaged ({error}): delete it and prepare again; nothing is downloaded "
                "twice"
            ) from error
        if found != SCHEMA_VERSION:
            raise ManifestError(
                f"{path} has schema version {found}, this scdiff_data reads {SCHEMA_VERSION}: "
                "prepare again in a new directory"
            )
        return cls(directory.path, content)

    @classmethod
    def write(cls, directory: DataDirectory, content: Mapping[str, Any]) -> "Manifest":
        """Write the manifest, adding the schema version and the packages' versions."""
        full = {
            "schema_version": SCHEMA_VERSION,
            **content,
            "packages": {"python": platform.python_version()} | {p: version(p) for p in _PACKAGES},
        }
        write_json(directory.manifest, full)
        directory.replaced.unlink(missing_ok=True)
        return cls(directory.path, full)

    @classmethod
    def read_replaced(cls, directory: DataDirectory) -> "Manifest | None":
        """Read what `set_aside` left, if the work that was to replace it was cut off."""
        path = directory.replaced
        if not path.exists():
            return None
        return cls(directory.path, json.loads(path.read_text("utf-8")))

    def set_aside(self) -> None:
        """Unfinish the directory, but keep the manifest, for the same work to go on from it."""
        write_json(self.directory.replaced, self.content)
        self.directory.manifest.unlink(missing_ok=True)

    @property
    def directory(self) -> DataDirectory:
        """What lies where."""
        return DataDirectory(self.data_dir)

    @property
    def n_cells(self) -> dict[str, int]:
        """Cells in each split: `train`, `val`, `test`."""
        return dict(self.content["cells"])

    @property
    def shard_size(self) -> int:
        """Cells in each shard but the last."""
        return int(self.content["recipe"]["shard_size"])

    @property
    def shards(self) -> list[Path]:
        """The shards in their order."""
        paths = (self.data_dir / entry["path"] for entry in self.content["files"])
        return [path for path in paths if path.parent == self.directory.shards]

    def check_files(self, *folders: Path) -> None:
        """Compare the sizes of the files in some folders, or of all files, with the manifest.

        Raises
        ------
        ManifestError
            If a file is missing or has another size.
        """
        name = self.directory.manifest.name
        for entry in self.content["files"]:
            path = self.data_dir / entry["path"]
            if folders and path.parent not in folders:
                continue
            size = path.stat().st_size if path.exists() else None
            if size != entry["size"]:
                found = "is missing" if size is None else f"has {size} bytes"
                raise ManifestError(
                    f"{path} {found}, {name} says {entry['size']} bytes: delete {path} and {name}, "
                    "and prepare again; what is whole stays"
                )


def unlink_manifest(directory: DataDirectory) -> None:
    """Unfinish the directory: a manifest never stands beside files that it does not describe."""
    for path in (directory.manifest, directory.replaced):
        path.unlink(missing_ok=True)
