"""What an earlier run left, compared byte by byte with what was written down of it."""

import os
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from scdiff_data.base import FileEntry, Workers, find_change
from scdiff_data.errors import ManifestError
from scdiff_data.shards import check_shards
from scdiff_data.store import DataDirectory, ExperimentRecord, Manifest, read_experiments


def find_damaged(
    directory: DataDirectory, records: Iterable[ExperimentRecord], n_threads: int
) -> list[ExperimentRecord]:
    """Read every byte of the archives of some records; those whose bytes are others, or gone."""
    with_files = [(record, record.file) for record in records if record.file is not None]
    with (
        tqdm(total=len(with_files), desc="verified", unit="file", disable=None) as bar,
        Workers(n_threads) as workers,
    ):

        def is_damaged(known: tuple[ExperimentRecord, FileEntry]) -> bool:
            change = find_change(known[1], directory.path, by="its record", full=True)
            bar.update()
            return change is not None

        found = workers.map(is_damaged, with_files)
    return [record for (record, _), bad in zip(with_files, found, strict=True) if bad]


def check_data_dir(data_dir: str | Path, *, n_threads: int | None = None) -> list[str]:
    """Read every byte of a prepared directory, and compare it with what was written.

    Parameters
    ----------
    data_dir
        The directory.
    n_threads
        Files read at a time; None is one a core.

    Returns
    -------
    problems
        What is wrong with which file, and what to do, a sentence each; none if all is whole.

    Raises
    ------
    FileNotFoundError
        If the directory was not prepared.
    ManifestError
        If its manifest is damaged, or another run of prepare replaced the data meanwhile.
    """
    return find_problems(Manifest.read(data_dir), n_threads=n_threads)


def find_problems(manifest: Manifest, *, n_threads: int | None = None) -> list[str]:
    """What `check_data_dir` gives, of a directory whose manifest was read."""
    n_bytes = sum(entry.size for entry in manifest.files)
    with (
        tqdm(total=n_bytes, desc="checked", unit="B", unit_scale=True, disable=None) as bar,
        Workers(n_threads or os.cpu_count() or 1) as workers,
    ):

        def check(entry: FileEntry) -> str | None:
            try:
                manifest.check_file(entry, full=True)
            except ManifestError as error:
                return str(error)
            finally:
                bar.update(entry.size)
            return None

        problems = [found for found in workers.map(check, manifest.files) if found is not None]
    if not problems:  # then the files are those that were meant, and say what can be
        try:
            check_shards(manifest, full=False)
            read_experiments(manifest.directory.experiments)
        except ManifestError as error:
            problems.append(str(error))
    for path in sorted(manifest.directory.archives.glob("*.json")):
        try:
            ExperimentRecord.read(path)
        except (OSError, ManifestError) as error:
            problems.append(
                f"{path} is damaged ({error.__cause__ or error}): delete it; where it is needed, "
                "prepare makes it again, with the archive"
            )
    if problems:  # none of which is one if another run is at work on the files
        manifest.check_unchanged()
    return problems
