"""All stages up to the shards, in order; each is skipped when nothing it depends on changed.

    catalog ──▶ draw, download, archive ──▶ cells ──▶ HVGs ──▶ shards ──▶ config.json

Killed at any moment, the same call goes on; the result is the same to the byte.
"""

import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from scdiff_data.errors import ManifestError
from scdiff_data.pipeline.assemble import assemble, reassemble
from scdiff_data.pipeline.faults import explain_faults
from scdiff_data.pipeline.fill_archive import fill_archive
from scdiff_data.pipeline.planning import Plan, make_plan
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.shards import check_shards, rewrite_shards
from scdiff_data.sources import Bucket, read_snapshot, take_snapshot
from scdiff_data.store import DataDirectory, Manifest, locked, mark_unfinished, refuse_strangers
from scdiff_data.telling import Progress

logger = logging.getLogger(__name__)


def prepare(
    recipe: Recipe,
    data_dir: str | Path,
    *,
    n_threads: int = 4,
    max_memory: int = 1 << 30,
    keep_downloads: bool = False,
    refresh_catalog: bool = False,
    retry_failed: bool = False,
    replace: bool = False,
) -> Manifest:
    """Make a data directory from a recipe, or find that it is made.

    Parameters
    ----------
    recipe
        What is wanted.
    data_dir
        Where everything goes. Two processes may ask for the same directory: the second waits. A
        finished one may be read-only.
    n_threads, max_memory, keep_downloads, refresh_catalog, retry_failed, replace
        How it is done, see `PrepareOptions`.

    Raises
    ------
    ValueError
        If the settings contradict each other or the data, or `data_dir` holds others' files, or
        finished data of other settings and `replace` is False.
    FileNotFoundError
        If the source has no catalog.
    DownloadError
        If the bucket cannot be read, or too many experiments failed.
    OSError
        If the directory cannot be written, or its disk is full; what is there stays.
    """
    options = PrepareOptions(
        n_threads=n_threads,
        max_memory=max_memory,
        keep_downloads=keep_downloads,
        refresh_catalog=refresh_catalog,
        retry_failed=retry_failed,
        replace=replace,
    )
    directory = DataDirectory(Path(data_dir))
    is_known = not (refresh_catalog or retry_failed)
    if is_known and directory.path.is_dir() and not os.access(directory.path, os.W_OK):
        finished = _find_finished(recipe, directory)
        if finished is not None and recipe.allows(finished.shard_format):
            return finished
    with explain_faults(directory.path), locked(directory):
        refuse_strangers(directory)
        finished = _find_finished(recipe, directory) if is_known else None
        if finished is not None:
            if recipe.allows(finished.shard_format):
                return finished
            return _convert(directory, recipe.shard_format, n_threads)
        _ask_before_replacing(recipe, directory, replace=replace)
        bucket, catalog = _open_source(recipe, directory, options)
        planned = make_plan(recipe, directory, catalog, options)
        planned.check()
        logger.info("the plan:\n%s", planned)
        mark_unfinished(directory)
        filled = fill_archive(
            recipe,
            directory,
            bucket,
            planned.candidates,
            options,
            n_bytes=planned.likely.fetch_bytes,
        )
        return assemble(recipe, directory, planned.candidates, filled, options)


def plan(
    recipe: Recipe,
    data_dir: str | Path,
    *,
    n_threads: int = 4,
    max_memory: int = 1 << 30,
    keep_downloads: bool = False,
    refresh_catalog: bool = False,
    retry_failed: bool = False,
) -> Plan:
    """Say what `prepare` would draw, fetch and store, without fetching a cell.

    The catalog's snapshot is taken if there is none yet, so the run will follow the same one.

    Parameters
    ----------
    recipe, data_dir, n_threads, max_memory, keep_downloads, refresh_catalog, retry_failed
        As `prepare` takes them.

    Raises
    ------
    ValueError
        If no experiment passes the filters, or a filter names no column of the catalog.
    FileNotFoundError
        If the source has no catalog.
    """
    options = PrepareOptions(
        n_threads=n_threads,
        max_memory=max_memory,
        keep_downloads=keep_downloads,
        refresh_catalog=refresh_catalog,
        retry_failed=retry_failed,
    )
    directory = DataDirectory(Path(data_dir))
    with explain_faults(directory.path), locked(directory):
        refuse_strangers(directory)
        _, catalog = _open_source(recipe, directory, options)
    return make_plan(recipe, directory, catalog, options)


def choose_genes_again(
    data_dir: str | Path,
    *,
    replace: bool = False,
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
    n_threads, max_memory
        How it is done, see `PrepareOptions`.
    changes
        `n_hvgs`, `min_cells_pct`, `flavor`, `normalize`, `batch_key` or `genes`, see `Recipe`; what
        is not named stays.

    Raises
    ------
    FileNotFoundError
        If the directory was not prepared.
    ManifestError
        If its archives are damaged.
    ValueError
        If a setting is out of its range, or other genes are there and `replace` is False.
    """
    directory = DataDirectory(Path(data_dir))
    if not directory.path.is_dir():
        raise FileNotFoundError(f"{directory.path} is no directory: name one that was prepared")
    with explain_faults(directory.path), locked(directory):
        options = PrepareOptions(n_threads=n_threads, max_memory=max_memory)
        return reassemble(directory, changes, options, replace=replace)


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
    directory = DataDirectory(Path(data_dir))
    if not directory.path.is_dir():
        raise FileNotFoundError(f"{directory.path} is no directory: name one that was prepared")
    with explain_faults(directory.path), locked(directory):
        return _convert(directory, shard_format, n_threads)


def _convert(directory: DataDirectory, shard_format: str, n_threads: int) -> Manifest:
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


def _open_source(
    recipe: Recipe, directory: DataDirectory, options: PrepareOptions
) -> tuple[Bucket, pa.Table]:
    bucket = recipe.source.open(directory.source)
    catalog = None if options.refresh_catalog else read_snapshot(directory.catalog, recipe.source)
    if catalog is None:
        mark_unfinished(directory)
        catalog = take_snapshot(directory.catalog, recipe.source, bucket)
    return bucket, catalog


def _ask_before_replacing(recipe: Recipe, directory: DataDirectory, *, replace: bool) -> None:
    """Raise ValueError if finished data of other settings are there that have to go."""
    try:
        stored = Manifest.read(directory.path).recipe
    except (FileNotFoundError, ManifestError):
        return
    if recipe.makes_what(stored):
        return
    lost = recipe.describe_difference(stored, replaced_alone=True)
    if lost and not replace:
        raise ValueError(
            f"{directory.path} holds finished data of other settings ({lost}): set another "
            "data_dir, or let them go with replace=True (replace_data=true on the command line)"
        )
    logger.warning(
        "%s holds data of other settings (%s): they are replaced",
        *(directory.path, recipe.describe_difference(stored)),
    )


def _find_finished(recipe: Recipe, directory: DataDirectory) -> Manifest | None:
    """The manifest, if it is of this recipe and all its files are there."""
    try:
        manifest = Manifest.read(directory.path)
        manifest.check_files()
    except FileNotFoundError:
        return None
    except ManifestError as error:
        logger.warning("%s; preparing what is missing", error)
        return None
    return manifest if recipe.makes_what(manifest.recipe) else None
