"""Files of other people in a data directory: nothing of theirs is written over or deleted."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scdiff_data.errors import ManifestError
from scdiff_data.store.layout import DataDirectory
from scdiff_data.store.records import ExperimentRecord


def refuse_strangers(directory: DataDirectory) -> None:
    """Make sure that what bears our names in a directory is ours.

    Parameters
    ----------
    directory
        What is to be prepared, with or without what an earlier run left.

    Raises
    ------
    ValueError
        If a file is somebody else's.
    """
    ours = _is_ours(directory)
    strangers = [path for path in (directory.manifest, directory.replaced) if _is_other(path, ours)]
    if not ours:
        files = (directory.hvg_info, directory.hvg_figure)
        strangers += [path for path in files if path.exists()]
        folders = (
            directory.metadata,
            directory.archives,
            directory.statistics("").parent,
            directory.shards,
            directory.ordering,
            directory.sorting,
            directory.making,
            directory.fits,
            directory.downloads,
        )
        # A run that was killed at its first file leaves a `.tmp`.
        found = (path for folder in folders for path in sorted(folder.glob("*")))
        strangers += [path for path in found if path.suffix != ".tmp"]
    if strangers:
        names = [str(path.relative_to(directory.path)) for path in dict.fromkeys(strangers)]
        more = f" and {len(names) - 3} more" if names[3:] else ""
        raise ValueError(
            f"{directory.path} holds {', '.join(names[:3])}{more}, which scdiff_data did not write "
            "and would write over: set data_dir to an empty folder, or move them away"
        )


def _is_ours(directory: DataDirectory) -> bool:
    """Whether an earlier run began here: its catalog, manifest, note of a bucket, or a record."""
    if directory.bucket.exists():
        return True
    try:
        if b"source" in (pq.read_schema(directory.catalog).metadata or {}):
            return True
    except (OSError, pa.ArrowException, ValueError):  # the last one of names that are no UTF-8
        pass
    if any(_is_manifest(_read(path)) for path in (directory.manifest, directory.replaced)):
        return True
    return any(map(_is_record, directory.archives.glob("*.json")))


def _is_record(path: Path) -> bool:
    try:
        ExperimentRecord.read(path)
    except (OSError, ManifestError):
        return False
    return True


def _is_other(path: Path, ours: bool) -> bool:  # noqa: FBT001
    """Whether a file in a manifest's place is none; one of ours that is damaged is no JSON."""
    if not path.exists() or _is_manifest(content := _read(path)):
        return False
    return content is not None or not ours


def _is_manifest(content: Any) -> bool:
    return isinstance(content, dict) and "schema_version" in content


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
