"""A finished directory, made otherwise from what it holds: other genes, another format of shards.

Needs neither the source nor the network. Killed at any moment, the same call goes on.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scdiff_data.base import explain_damage
from scdiff_data.constants import SPLITS
from scdiff_data.errors import ManifestError
from scdiff_data.pipeline.assemble import assemble, choose_from, write_choice
from scdiff_data.pipeline.fill_archive import FilledArchive
from scdiff_data.pipeline.verifying import find_damaged
from scdiff_data.reading import GeneAxis
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.remote import refuse_copy
from scdiff_data.shards import check_shards, rewrite_shards
from scdiff_data.sources import Rows, filter_catalog, read_stored
from scdiff_data.store import (
    DataDirectory,
    ExperimentRecord,
    Manifest,
    explain_faults,
    find_directory,
    locked,
    mark_unfinished,
    read_experiments,
)
from scdiff_data.telling import Progress


def choose_genes_again(
    data_dir: str | Path,
    *,
    replace: bool = False,
    output_dir: str | Path | None = None,
    n_threads: int = 4,
    max_memory: int = 1 << 30,
    **changes: Any,
) -> Manifest:
    """Choose genes by other settings, from the archive alone, and write the shards anew.

    Parameters
    ----------
    data_dir
        A prepared directory.
    replace
        Whether the genes and shards that are there may be replaced.
    output_dir
        A folder for `hvg_info.json` and `hvg_analysis.png` alone: the directory then stays as it
        is, and the manifest that is given is its own. None replaces what is there.
    n_threads, max_memory
        How it is done, see `PrepareOptions`.
    changes
        `n_hvgs`, `min_cells_pct`, `flavor`, `normalize`, `span`, `batch_key` or `genes`, see
        `Recipe`; what is not named stays.

    Raises
    ------
    FileNotFoundError
        If the directory was not prepared.
    ManifestError
        If its archives are damaged.
    ValueError
        If a setting is out of its range, or other genes are there and `replace` is False.
    """
    directory = find_directory(data_dir)
    refuse_copy(directory)
    options = PrepareOptions(n_threads=n_threads, max_memory=max_memory)
    if output_dir is not None:
        return _choose_elsewhere(directory, Path(output_dir), changes, options)
    with explain_faults(directory.path), locked(directory):
        return _reassemble(directory, changes, options, replace=replace)


def convert_shards(data_dir: str | Path, shard_format: str, *, n_threads: int = 4) -> Manifest:
    """Make dense shards compact, or compact ones dense; the counts stay exactly the same.

    Killed at any moment, the same call goes on. Datasets that are open meanwhile must be opened
    again.

    Parameters
    ----------
    data_dir
        A prepared directory.
    shard_format
        `dense` or `compact`.
    n_threads
        Shards written at a time.

    Raises
    ------
    FileNotFoundError
        If the directory was not prepared.
    ManifestError
        If its shards are damaged.
    ValueError
        If there is no such format.
    """
    if shard_format not in ("dense", "compact"):
        raise ValueError(f"shard_format must be dense or compact, got {shard_format!r}")
    directory = find_directory(data_dir)
    with explain_faults(directory.path), locked(directory):
        return convert(directory, shard_format, n_threads)


def convert(directory: DataDirectory, shard_format: str, n_threads: int) -> Manifest:
    """As `convert_shards`; the caller holds the directory's lock."""
    refuse_copy(directory)
    begun = Manifest.read_replaced(directory)
    manifest = begun or Manifest.read(directory.path)
    if begun is None:
        check_shards(manifest, full=False)
        if manifest.shard_format == shard_format:
            return manifest
    mark_unfinished(directory, keep=True)
    n_cells = sum(manifest.n_cells.values())
    with Progress(shard_format, "cells", n_cells) as progress:
        converted = rewrite_shards(
            manifest, shard_format, n_threads=n_threads, report_cells=progress.add
        )
    converted.write()
    return converted


def _reassemble(
    directory: DataDirectory, changes: Mapping[str, Any], options: PrepareOptions, *, replace: bool
) -> Manifest:
    manifest = Manifest.read_replaced(directory) or Manifest.read(directory.path)
    stored = manifest.recipe
    recipe = Recipe.from_settings(stored, **changes)
    if not replace:
        manifest.check_files()
        if recipe.makes_what(stored):
            return manifest
        different = [f"{k}={stored[k]}" for k in changes if stored[k] != recipe.settings()[k]]
        raise ValueError(
            f"{directory.path} holds genes chosen with {', '.join(different)}: replace=True "
            f"(--replace) replaces them, {directory.hvg_info.name} and the shards; output_dir=… "
            "(--output_dir) writes the choice elsewhere and leaves all as it is"
        )
    candidates, filled = _find_archives(directory, manifest, recipe)
    if damaged := find_damaged(directory, filled.records, options.n_threads):
        raise ManifestError(
            f"{directory.archive(damaged[0].experiment_id)} has other bytes than its record says: "
            "call prepare(recipe, data_dir) or run 'scdiff-data prepare', which "
            "make it again"
        )
    mark_unfinished(directory, keep=True)
    return assemble(recipe, directory, candidates, filled, options)


def _choose_elsewhere(
    directory: DataDirectory, folder: Path, changes: Mapping[str, Any], options: PrepareOptions
) -> Manifest:
    manifest = Manifest.read(directory.path)
    recipe = Recipe.from_settings(manifest.recipe, **changes)
    candidates, filled = _find_archives(directory, manifest, recipe)
    splits = _read_splits(directory, filled.records)
    choice, _ = choose_from(recipe, directory, candidates, filled, splits, options)
    manifest.check_unchanged()
    folder.mkdir(parents=True, exist_ok=True)
    own = DataDirectory(folder)
    write_choice(recipe, filled.axis, choice, info=own.hvg_info, figure=own.hvg_figure)
    return manifest


def _find_archives(
    directory: DataDirectory, manifest: Manifest, recipe: Recipe
) -> tuple[pa.Table, FilledArchive]:
    """The catalog's rows that a finished directory was drawn from, and its archives."""
    manifest.check_files(directory.archives)
    needed = (directory.catalog, directory.genes, directory.experiments)
    for entry in manifest.files:
        if directory.path / entry.path in needed:
            manifest.check_file(entry, full=True)
    axis = GeneAxis.read(directory.genes)
    catalog = read_stored(directory.catalog)
    candidates = filter_catalog(catalog, recipe.filters, recipe.exclude, directory.metadata)
    rows = Rows(candidates)
    files, found = set(manifest.files), []
    for tried in read_experiments(directory.experiments):
        if (name := tried["experiment_id"]) not in rows:
            raise ManifestError.damaged(
                directory.experiments, f"experiment_id {name} is none of the catalog's"
            )
        record = _read_record(directory, name)
        archived = None if record is None else record.file
        if record is None or (archived and not (archived in files and record.axis == axis.digest)):
            raise ManifestError(
                f"the record or archive of experiment {name} in "
                f"{directory.archives} is missing or damaged: call prepare(recipe, data_dir) or "
                "run 'scdiff-data prepare', which fetch what is missing"
            )
        found.append(record)
    return candidates, FilledArchive(axis, found)


def _read_record(directory: DataDirectory, experiment_id: str) -> ExperimentRecord | None:
    """The record of an experiment; None if it cannot be read.

    Its key is not compared, since a source that is known by its settings alone may not know how its
    files were read: the manifest vouches for the archive.
    """
    try:
        return ExperimentRecord.read(directory.record(experiment_id))
    except (FileNotFoundError, ManifestError):
        return None


def _read_splits(
    directory: DataDirectory, records: Sequence[ExperimentRecord]
) -> dict[str, NDArray[np.int8]]:
    """Of each archive with drawn cells, each row's split as the table of cells has it, else -1."""
    splits = {r.experiment_id: np.full(r.n_cells, -1, np.int8) for r in records if r.n_cells}
    drawn = set()
    with explain_damage(directory.cells), pq.ParquetFile(directory.cells) as table:
        for name, rows, codes in _read_places(table):
            splits[name][rows] = codes
            drawn.add(name)
    return {name: splits[name] for name in sorted(drawn)}


def _read_places(
    table: pq.ParquetFile,
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int8]]]:
    """Experiment, rows in its archive and their splits, some cells at a time."""
    for batch in table.iter_batches(columns=["experiment_id", "archive_row", "split"]):
        part = batch.to_pandas()
        codes = part["split"].astype(str).map(SPLITS.index).to_numpy(np.int8)
        rows = part["archive_row"].to_numpy(np.int64)
        for name, places in part.groupby("experiment_id", observed=True).indices.items():
            yield str(name), rows[places], codes[places]
