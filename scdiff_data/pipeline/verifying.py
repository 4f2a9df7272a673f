"""What an earlier run left: whether it is what is asked for, and byte by byte what was written."""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scdiff_data.base import (
    FileEntry,
    Workers,
    explain_damage,
    find_change,
    read_sealed,
    write_sealed,
)
from scdiff_data.errors import ManifestError
from scdiff_data.recipes import Recipe, Stages
from scdiff_data.shards import check_shards
from scdiff_data.sources import ListedSource
from scdiff_data.store import DataDirectory, ExperimentRecord, Manifest, read_experiments
from scdiff_data.telling import Progress

logger = logging.getLogger(__name__)


def find_finished(recipe: Recipe, directory: DataDirectory, stages: Stages) -> Manifest | None:
    """The manifest, if it is of this recipe and all its files are there."""
    try:
        manifest = Manifest.read(directory.path)
        manifest.check_files()
    except FileNotFoundError:
        return None
    except ManifestError as error:
        logger.warning("%s; preparing what is missing", error)
        return None
    if stages == "process":
        recipe = _ask_no_server(recipe, manifest.recipe["source"])
    return manifest if recipe.makes_what(manifest.recipe) else None


def note_download(recipe: Recipe, directory: DataDirectory) -> None:
    """Write down what archives were made for, so that the rest can be made without the source."""
    write_sealed(directory.downloaded, recipe.settings())


def recall_download(recipe: Recipe, directory: DataDirectory) -> Recipe:
    """The recipe, if what `note_download` wrote, or a manifest, says that it has its archives.

    Raises
    ------
    FileNotFoundError
        If neither is there.
    ManifestError
        If what is there is damaged.
    ValueError
        If its genes or cells are from elsewhere.
    """
    try:
        with explain_damage(directory.downloaded):
            stored = read_sealed(directory.downloaded)
            source = dict(stored["source"])
    except FileNotFoundError:
        manifest = Manifest.read_replaced(directory)
        if manifest is None and not directory.manifest.exists():
            lacking = f"{directory.downloaded}, which stages=download writes at its end"
            raise FileNotFoundError(explain_lack(directory, lacking)) from None
        stored = dict((manifest or Manifest.read(directory.path)).recipe)
        source = dict(stored["source"])
    recipe = _ask_no_server(recipe, source)
    same = {name: recipe.settings()[name] for name in ("source", "gene_axis")}
    if same != {name: stored.get(name) for name in same}:
        raise ValueError(
            f"stages=process, but {directory.path} was downloaded for other settings "
            f"({recipe.describe_difference({**recipe.settings(), **stored})}): give those, or run "
            "stages=download again"
        )
    return recipe


def explain_lack(directory: DataDirectory, lacking: str) -> str:
    """What `stages=process` lacks, and what to do."""
    return (
        f"stages=process opens no network connection, and {directory.path} lacks {lacking}: run "
        "the same with stages=download first, where there is a network; it goes on from what is "
        "there"
    )


def _ask_no_server(recipe: Recipe, known: Mapping[str, Any]) -> Recipe:
    """The recipe; what its source would list on a server is taken as it is known."""
    if not getattr(recipe.source, "lists_remotely", False):
        return recipe
    return recipe.of_source(ListedSource(recipe.source, known))


def find_damaged(
    directory: DataDirectory, records: Iterable[ExperimentRecord], n_threads: int
) -> list[ExperimentRecord]:
    """Read every byte of the archives of some records; those whose bytes are others, or gone."""
    with_files = [(record, record.file) for record in records if record.file is not None]
    with (
        Progress("verify", "B", sum(file.size for _, file in with_files)) as progress,
        Workers(n_threads) as workers,
    ):

        def is_damaged(known: tuple[ExperimentRecord, FileEntry]) -> bool:
            change = find_change(known[1], directory.path, by="its record", full=True)
            progress.add(known[1].size)
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
        Progress("check", "B", n_bytes) as progress,
        Workers(n_threads or os.cpu_count() or 1) as workers,
    ):

        def check(entry: FileEntry) -> str | None:
            try:
                manifest.check_file(entry, full=True)
            except ManifestError as error:
                return str(error)
            finally:
                progress.add(entry.size)
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
