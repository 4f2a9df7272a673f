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

SCHEMA_VERSION = 1
"""Of the files on disk; data of another version are made anew."""

NAME = "config.json"

_REPLACED = "metadata/replaced.json"

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
        folder = Path(folder)
        path = folder / NAME
        if not path.exists() and folder.name == "processed":
            path = folder.parent / NAME
        if not path.exists():
            raise FileNotFoundError(
                f"no shards in {folder}: {NAME} is missing; run 'python train.py prepare_only=true'"
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
        return cls(path.parent, content)

    @classmethod
    def write(cls, data_dir: Path, content: Mapping[str, Any]) -> "Manifest":
        """Write the manifest, adding the schema version and the packages' versions."""
        full = {
            "schema_version": SCHEMA_VERSION,
            **content,
            "packages": {"python": platform.python_version()} | {p: version(p) for p in _PACKAGES},
        }
        write_json(data_dir / NAME, full)
        (data_dir / _REPLACED).unlink(missing_ok=True)
        return cls(data_dir, full)

    @classmethod
    def read_replaced(cls, data_dir: Path) -> "Manifest | None":
        """Read what `set_aside` left, if the work that was to replace it was cut off."""
        path = data_dir / _REPLACED
        return cls(data_dir, json.loads(path.read_text("utf-8"))) if path.exists() else None

    def set_aside(self) -> None:
        """Unfinish the directory, but keep the manifest, for the same work to go on from it."""
        write_json(self.data_dir / _REPLACED, self.content)
        (self.data_dir / NAME).unlink(missing_ok=True)

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
        names = [entry["path"] for entry in self.content["files"]]
        return [self.data_dir / name for name in names if name.startswith("processed/")]

    def check_files(self, *folders: str) -> None:
        """Compare the sizes of the files in some folders, or of all files, with the manifest.

        Raises
        ------
        ManifestError
            If a file is missing or has another size.
        """
        for entry in self.content["files"]:
            if folders and not entry["path"].startswith(folders):
                continue
            path = self.data_dir / entry["path"]
            size = path.stat().st_size if path.exists() else None
            if size != entry["size"]:
                found = "is missing" if size is None else f"has {size} bytes"
                raise ManifestError(
                    f"{path} {found}, {NAME} says {entry['size']} bytes: delete {path} and {NAME}, "
                    "and prepare again; what is whole stays"
                )


def unlink_manifest(data_dir: Path) -> None:
    """Unfinish the directory: a manifest never stands beside files that it does not describe."""
    for name in (NAME, _REPLACED):
        (data_dir / name).unlink(missing_ok=True)
