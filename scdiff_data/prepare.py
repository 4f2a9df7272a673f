"""All stages up to the shards, in order; each is skipped when nothing it depends on changed.

    catalog ──▶ draw, download, archive ──▶ cells ──▶ HVGs ──▶ shards ──▶ config.json

Killed at any moment, the same call goes on; the result is the same to the byte.
"""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from tqdm import tqdm

from scdiff_data.catalog import filter_catalog, read_snapshot, take_snapshot
from scdiff_data.cells import draw_table, split_codes
from scdiff_data.collect import Collected, Collector
from scdiff_data.draw import SPLITS
from scdiff_data.errors import ManifestError
from scdiff_data.files import describe_file, digest, hash_file, write_json, write_parquet
from scdiff_data.hvg import choose_genes, sum_statistics
from scdiff_data.manifest import NAME, Manifest
from scdiff_data.planning import Plan, make_plan
from scdiff_data.plots import plot_hvgs
from scdiff_data.recipe import Recipe
from scdiff_data.records import list_experiments, sum_dropped
from scdiff_data.shards import write_shards
from scdiff_data.sources import Bucket

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
) -> Manifest:
    """Make a data directory from a recipe, or find that it is made.

    Parameters
    ----------
    recipe
        What is wanted.
    data_dir
        Where everything goes. Two processes may ask for the same directory: the second waits. A
        finished one may be read-only.
    n_threads
        Downloads at a time.
    max_memory
        Bytes that the conversion of one file may take.
    keep_downloads
        Whether source files stay in `downloads/` once they are archived.
    refresh_catalog
        Whether the catalog's snapshot is renewed.
    retry_failed
        Whether experiments that failed for good are tried again.

    Raises
    ------
    ValueError
        If the settings contradict each other or the data.
    FileNotFoundError
        If the source has no catalog.
    DownloadError
        If the bucket cannot be read, or too many experiments failed.
    OSError
        If the directory cannot be written, or its disk is full; what is there stays.
    """
    data_dir = Path(data_dir)
    if n_threads < 1 or max_memory < 1 << 20:
        raise ValueError(
            f"n_threads must be at least 1 and max_memory at least 1 MiB, got {n_threads} and "
            f"{max_memory}"
        )
    is_known = not (refresh_catalog or retry_failed)
    if is_known and data_dir.is_dir() and not os.access(data_dir, os.W_OK):
        finished = _find_finished(recipe, data_dir)
        if finished is not None:
            return finished
    with _explain_faults(data_dir), _lock(data_dir):
        finished = _find_finished(recipe, data_dir) if is_known else None
        if finished is not None:
            return finished
        bucket, catalog = _open_source(recipe, data_dir, refresh_catalog=refresh_catalog)
        forecast = make_plan(
            recipe,
            data_dir,
            catalog,
            n_threads=n_threads,
            keep_downloads=keep_downloads,
            retry_failed=retry_failed,
        )
        forecast.check()
        logger.info("the plan:\n%s", forecast)
        _unlink_manifest(data_dir)
        candidates = filter_catalog(catalog, recipe.filters, recipe.exclude)
        collector = Collector(
            recipe,
            data_dir,
            bucket,
            n_threads=n_threads,
            max_memory=max_memory,
            keep_downloads=keep_downloads,
            retry_failed=retry_failed,
        )
        return _finish(recipe, data_dir, candidates, collector.collect(candidates))


def plan(
    recipe: Recipe,
    data_dir: str | Path,
    *,
    n_threads: int = 4,
    keep_downloads: bool = False,
    refresh_catalog: bool = False,
    retry_failed: bool = False,
) -> Plan:
    """Say what `prepare` would draw, fetch and store, without fetching a cell.

    The catalog's snapshot is taken if there is none yet, so the run will follow the same one.

    Parameters
    ----------
    recipe, data_dir, n_threads, keep_downloads, refresh_catalog, retry_failed
        As `prepare` takes them.

    Raises
    ------
    ValueError
        If no experiment passes the filters, or a filter names no column of the catalog.
    FileNotFoundError
        If the source has no catalog.
    """
    data_dir = Path(data_dir)
    with _explain_faults(data_dir), _lock(data_dir):
        _, catalog = _open_source(recipe, data_dir, refresh_catalog=refresh_catalog)
    return make_plan(
        recipe,
        data_dir,
        catalog,
        n_threads=n_threads,
        keep_downloads=keep_downloads,
        retry_failed=retry_failed,
    )


def _open_source(
    recipe: Recipe, data_dir: Path, *, refresh_catalog: bool
) -> tuple[Bucket, pa.Table]:
    bucket = recipe.source.open(data_dir / "source")
    path = data_dir / "metadata" / "catalog.parquet"
    catalog = None if refresh_catalog else read_snapshot(path, recipe.source)
    if catalog is None:
        _unlink_manifest(data_dir)
        catalog = take_snapshot(path, recipe.source, bucket)
    return bucket, catalog


def _unlink_manifest(data_dir: Path) -> None:
    """Unfinish the directory: a manifest never stands beside files that it does not describe."""
    (data_dir / NAME).unlink(missing_ok=True)


@contextmanager
def _lock(data_dir: Path) -> Iterator[None]:
    """Hold the directory's lock, saying so if another process has it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(data_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another process prepares %s: waiting for it", data_dir)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explain_faults(data_dir: Path) -> Iterator[None]:
    """Say what to do about a disk that is full or cannot be written, and about Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        logger.warning("stopped: the same command goes on from here")
        raise
    except (OSError, RuntimeError) as error:
        # HDF5 tells some of these by their text alone.
        code = getattr(error, "errno", None)
        if code in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise OSError(
                errno.ENOSPC,
                f"the disk of {data_dir} is full: free some space and run the same command, which "
                "goes on from here, or set data_dir to a larger disk",
            ) from error
        if code in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise OSError(
                code,
                f"cannot write in {data_dir}, which holds no finished data of these settings "
                f"({error}): set data_dir to a folder that can be written",
            ) from error
        raise


def _find_finished(recipe: Recipe, data_dir: Path) -> Manifest | None:
    """The manifest, if it is of this recipe and all its files are there."""
    try:
        manifest = Manifest.read(data_dir)
        manifest.check_files()
    except FileNotFoundError:
        return None
    except ManifestError as error:
        logger.warning("%s; preparing what is missing", error)
        return None
    return manifest if manifest.content["recipe_digest"] == recipe.digest else None


def _finish(recipe: Recipe, data_dir: Path, candidates: pa.Table, collected: Collected) -> Manifest:
    """From archives to cells, HVGs, shards and the manifest."""
    metadata, axis = data_dir / "metadata", collected.axis
    records = {r["experiment_id"]: r for r in collected.records if r.get("n_cells")}
    archives = {name: data_dir / record["file"]["path"] for name, record in records.items()}
    cells = draw_table(recipe, archives, {r["experiment_id"]: r for r in candidates.to_pylist()})
    write_parquet(metadata / "cells.parquet", cells)
    experiments = list_experiments(collected.records, cells)
    write_json(metadata / "experiments.json", experiments)

    checksums = {name: record["file"]["sha256"] for name, record in records.items()}
    statistics, statistics_files = sum_statistics(
        cells, archives, checksums, data_dir / "statistics"
    )
    choice = choose_genes(statistics, n_hvgs=recipe.n_hvgs, min_cells_pct=recipe.min_cells_pct)
    hvg_info = choice.to_dict(axis, n_hvgs=recipe.n_hvgs, min_cells_pct=recipe.min_cells_pct)
    write_json(data_dir / "hvg_info.json", hvg_info)
    plot_hvgs(
        data_dir / "hvg_analysis.png",
        mean=choice.mean,
        dispersion=choice.dispersion,
        cell_fraction=choice.cell_fraction,
        hvg_indices=choice.indices,
        gene_symbols=axis.symbols,
    )

    with tqdm(total=len(cells), desc="shards", unit="cell", disable=None) as bar:
        shards = write_shards(
            data_dir / "processed",
            cells,
            archives,
            gene_indices=choice.indices,
            gene_ids=hvg_info["hvg_names"],
            gene_symbols=hvg_info["hvg_symbols"],
            labels=recipe.labels,
            shard_size=recipe.shard_size,
            key=digest([recipe.digest, checksums, hvg_info["hvg_names"]]),
            report_cells=bar.update,
        )
    written = [
        *(metadata / name for name in ("catalog.parquet", "genes.parquet", "experiments.json")),
        metadata / "cells.parquet",
        *statistics_files,
        *(data_dir / name for name in ("hvg_info.json", "hvg_analysis.png")),
        *shards,
    ]
    sizes = np.bincount(split_codes(cells), minlength=len(SPLITS)).tolist()
    return Manifest.write(
        data_dir,
        {
            "recipe": recipe.settings(),
            "recipe_digest": recipe.digest,
            "catalog_digest": hash_file(metadata / "catalog.parquet"),
            "genes": {
                "n_reference": len(axis),
                "reference_digest": axis.digest,
                "n_chosen": len(choice.indices),
                "chosen_digest": digest(hvg_info["hvg_names"]),
            },
            "cells": dict(zip(SPLITS, sizes, strict=True)),
            "dropped": sum_dropped(experiments),
            "files": [record["file"] for record in records.values()]
            + [describe_file(path, data_dir) for path in written],
        },
    )
