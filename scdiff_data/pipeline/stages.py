"""All stages up to the shards, in order; each is skipped when nothing it depends on changed.

    catalog ──▶ draw, download, archive ──▶ cells ──▶ HVGs ──▶ shards ──▶ config.json
    └── stages=download, with network ──┘   └── stages=process, without ───────────┘

Killed at any moment, the same call goes on; the result is the same to the byte.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, overload

from scdiff_data.executors import Crew, Engine, choose_workers, hire, remove_runs
from scdiff_data.pipeline.assemble import assemble
from scdiff_data.pipeline.beginning import ask_before_replacing, open_source, read_finished
from scdiff_data.pipeline.cell_table import draw_cells
from scdiff_data.pipeline.fill_archive import fill_archive, take_archives
from scdiff_data.pipeline.remaking import convert
from scdiff_data.pipeline.verifying import (
    find_finished,
    note_download,
    recall_download,
)
from scdiff_data.planning import Plan, make_plan
from scdiff_data.recipes import PrepareOptions, Recipe, Stages
from scdiff_data.remote import PreparedBucket, refuse_copy, send, take_copy
from scdiff_data.sources import Rows
from scdiff_data.store import (
    DataDirectory,
    Manifest,
    explain_faults,
    locked,
    mark_unfinished,
    refuse_strangers,
)

logger = logging.getLogger(__name__)


@overload
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
    processed_url: str | None = None,
    local_limit: int | None = None,
    stages: Literal["all", "process"] = "all",
    executor: Executor | Engine | str | None = None,
) -> Manifest: ...


@overload
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
    processed_url: str | None = None,
    local_limit: int | None = None,
    stages: Literal["download"],
    executor: Executor | Engine | str | None = None,
) -> None: ...


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
    processed_url: str | None = None,
    local_limit: int | None = None,
    stages: Stages = "all",
    executor: Executor | Engine | str | None = None,
) -> Manifest | None:
    """Make a data directory from a recipe, or find that it is made.

    Parameters
    ----------
    recipe
        What is wanted.
    data_dir
        Where everything goes. Two processes may ask for the same directory: the second waits. A
        finished one may be read-only.
    n_threads, max_memory, keep_downloads, refresh_catalog, retry_failed, replace
    processed_url, local_limit, executor
        How it is done, see `PrepareOptions`.
    stages
        `download` fetches and archives, which needs the network, and stops. `process` makes the
        rest of what `download` left, and opens no network connection. `all` does both, to the same
        bytes.

    Returns
    -------
    manifest
        What the directory holds; None after `stages=download`, which finishes none.

    Raises
    ------
    ValueError
        If the settings contradict each other or the data, or `data_dir` holds others' files, or
        finished data of other settings and `replace` is False.
    FileNotFoundError
        If the source has no catalog, or `stages=process` lacks what `download` makes.
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
        processed_url=processed_url,
        local_limit=local_limit,
        stages=stages,
        executor=executor,
    )
    directory = DataDirectory(Path(data_dir))
    if processed_url is None or stages == "download":
        return _prepare(recipe, directory, options)
    bucket = PreparedBucket(processed_url)
    if not (refresh_catalog or retry_failed):
        copied = take_copy(
            bucket,
            directory,
            local_limit,
            lambda there: recipe.makes_what(there.recipe) and recipe.allows(there.shard_format),
        )
        if copied is not None:
            return copied
    there = bucket.read_manifest()
    ask_before_replacing(recipe, there, bucket.url, "processed_url", replace=replace)
    manifest = _prepare(recipe, directory, options)
    if manifest is not None:
        send(manifest, bucket, n_threads=n_threads)
    return manifest


def _prepare(recipe: Recipe, directory: DataDirectory, options: PrepareOptions) -> Manifest | None:
    """As `prepare`, but for a bucket."""
    stages, n_threads = options.stages, options.n_threads
    is_known = not (options.refresh_catalog or options.retry_failed)
    if is_known and directory.path.is_dir() and not os.access(directory.path, os.W_OK):
        finished = find_finished(recipe, directory, stages)
        if finished is not None and recipe.allows(finished.shard_format):
            return finished if stages != "download" else None
    with explain_faults(directory.path), locked(directory):
        refuse_strangers(directory)
        finished = find_finished(recipe, directory, stages) if is_known else None
        if finished is not None:
            directory.downloaded.unlink(missing_ok=True)
            if stages == "download":
                return None
            if recipe.allows(finished.shard_format):
                return finished
            return convert(directory, recipe.shard_format, n_threads)
        refuse_copy(directory)
        if stages == "process":
            recipe = recall_download(recipe, directory)
        stored = read_finished(directory)
        ask_before_replacing(recipe, stored, directory.path, "data_dir", replace=options.replace)
        bucket, catalog = open_source(recipe, directory, options)
        planned = make_plan(recipe, directory, catalog, options)
        planned.check()
        logger.info("the plan:\n%s", planned)
        n_bytes = planned.likely.fetch_bytes
        with _open_crew(directory, options, n_bytes) as crew:
            if bucket is None:
                filled = take_archives(recipe, directory, planned.candidates, options)
                note_download(recipe, directory)  # before the manifest goes, which says the same
                mark_unfinished(directory)
            else:
                mark_unfinished(directory)
                filled = fill_archive(
                    *(recipe, directory, bucket, planned.candidates, options),
                    n_bytes=n_bytes,
                    crew=crew,
                )
            if stages == "download":
                note_download(recipe, directory)
                # What the cells make impossible is told while there is a network.
                archives = directory.archives_of(filled.files)
                draw_cells(recipe, directory, archives, Rows(planned.candidates))
                return None
            manifest = assemble(recipe, directory, planned.candidates, filled, options, crew)
        directory.downloaded.unlink(missing_ok=True)
        return manifest


@contextmanager
def _open_crew(
    directory: DataDirectory, options: PrepareOptions, n_bytes: int
) -> Iterator[Crew | None]:
    """Who does the work elsewhere; None where threads of this process do."""
    remove_runs(directory.making)
    chosen = choose_workers(options.executor, n_bytes=n_bytes, max_memory=options.max_memory)
    with chosen as workplace:
        if workplace is None:
            yield None
        else:
            with hire(workplace, directory.making) as crew:
                yield crew


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
        _, catalog = open_source(recipe, directory, options)
    return make_plan(recipe, directory, catalog, options)
