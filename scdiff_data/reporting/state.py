"""Whether a directory is whole, unfinished or damaged, and how far it is."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from scdiff_data.base import describe_number, describe_size
from scdiff_data.errors import ManifestError
from scdiff_data.store import DataDirectory, ExperimentRecord, Manifest, is_being_prepared

_MOST_NAMED = 5
"""Damaged files that are named one by one."""


@dataclass(frozen=True)
class State:
    """How a directory is.

    Parameters
    ----------
    kind
        `whole`: finished, and its files have the sizes that were written down. `unfinished`: the
        same command goes on. `damaged`: something of it is not as it was written.
    notes
        What is missing or wrong, how far it is, and what to do; a sentence each.
    manifest
        What the finished directory, or the one that is made anew, says of itself; None if it
        cannot be read.
    """

    kind: Literal["whole", "unfinished", "damaged"]
    notes: tuple[str, ...]
    manifest: Manifest | None


def find_state(directory: DataDirectory) -> State:
    """How a directory is, by its manifest and the sizes of its files; no file is read whole.

    Raises
    ------
    FileNotFoundError
        If nothing in it is ours.
    """
    try:
        if directory.manifest.exists():
            manifest = Manifest.read(directory.path)
            return _compare_sizes(manifest)
        replaced = Manifest.read_replaced(directory)
    except ManifestError as error:
        return State("damaged", (str(error),), None)
    if not (replaced or directory.catalog.exists() or directory.archives.is_dir()):
        raise FileNotFoundError(
            f"{directory.path} holds nothing that scdiff_data prepared: name a data_dir, or make "
            "one with 'scdiff-data prepare'"
        )
    return State("unfinished", tuple(_tell_progress(directory, replaced)), replaced)


def weigh(folder: Path) -> dict[str, int]:
    """Bytes of each folder of a directory, and of the files in it, the most first."""
    sizes: Counter[str] = Counter()
    for place, _, names in os.walk(folder):
        part = Path(place).relative_to(folder).parts
        for name in names:
            path = Path(place) / name
            if not path.is_symlink():
                sizes[f"{part[0]}/" if part else "files"] += path.stat().st_size
    return dict(sizes.most_common())


def _compare_sizes(manifest: Manifest) -> State:
    problems = []
    for entry in manifest.files:
        try:
            manifest.check_file(entry, full=False)
        except ManifestError as error:
            problems.append(str(error))
    if not problems:
        return State("whole", (), manifest)
    more = len(problems) - _MOST_NAMED
    named = problems[:_MOST_NAMED] + ([f"and {more:,} more files"] if more > 0 else [])
    return State("damaged", tuple(named), manifest)


def _tell_progress(directory: DataDirectory, replaced: Manifest | None) -> list[str]:
    """How far an unfinished directory is, and what makes the rest."""
    said = []
    if directory.catalog.exists():
        n = pq.read_metadata(directory.catalog).num_rows
        said.append(f"the catalog has {describe_number(n, 'experiment')}")
    n_archived = n_cells = n_failed = n_unread = 0
    for path in directory.archives.glob("*.json"):
        try:
            record = ExperimentRecord.read(path)
        except (OSError, ManifestError):
            n_unread += 1
            continue
        n_cells += record.n_cells
        n_archived += record.n_cells > 0
        n_failed += record.failed
    archived = describe_number(n_archived, "experiment")
    said.append(f"{archived} archived, with {describe_number(n_cells, 'cell')}")
    if n_failed or n_unread:
        said.append(f"{n_failed:,} failed for good, and {n_unread:,} records cannot be read")
    on_their_way = sum(path.stat().st_size for path in directory.downloads.glob("*"))
    if on_their_way:
        said.append(f"{describe_size(on_their_way)} are downloaded and not archived yet")
    if shards := directory.find_shards():
        said.append(f"{describe_number(len(shards), 'shard')} there or begun")
    if is_being_prepared(directory):
        return [*said, "another process works on it now"]
    if replaced is not None:
        return [*said, "it was being made anew: the same command, 'hvg' or 'convert', goes on"]
    if directory.downloaded.exists():
        return [*said, "all is downloaded: stages=process makes the rest, without network"]
    return [*said, "the same command that began it goes on"]
