"""All stages up to the shards, in order; each is skipped when nothing it depends on changed.

    catalog ──▶ draw, download, archive ──▶ cells ──▶ HVGs ──▶ shards ──▶ config.json

Killed at any moment, the same call goes on; the result is the same to the byte.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout
from tqdm import tqdm

from scdiff_data.catalog import filter_catalog, load_catalog
from scdiff_data.cells import draw_table, split_codes
from scdiff_data.collect import Collected, Collector
from scdiff_data.draw import SPLITS
from scdiff_data.errors import ManifestError
from scdiff_data.files import describe_file, digest, hash_file, write_json, write_parquet
from scdiff_data.hvg import choose_genes, sum_statistics
from scdiff_data.manifest import NAME, Manifest
from scdiff_data.plots import plot_hvgs
from scdiff_data.recipe import Recipe
from scdiff_data.shards import write_shards

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
        Where everything goes. Two processes may ask for the same directory: the second waits.
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
    """
    data_dir = Path(data_dir)
    if n_threads < 1 or max_memory < 1 << 20:
        raise ValueError(
            f"n_threads must be at least 1 and max_memory at least 1 MiB, got {n_threads} and "
            f"{max_memory}"
        )
    data_dir.mkdir(parents=True, exist_ok=True)
    with _lock(data_dir):
        finished = None if refresh_catalog or retry_failed else _find_finished(recipe, data_dir)
        if finished is not None:
            return finished
        # A manifest never stands beside files that it does not describe.
        (data_dir / NAME).unlink(missing_ok=True)
        bucket = recipe.source.open(data_dir / "source")
        catalog_path = data_dir / "metadata" / "catalog.parquet"
        catalog = load_catalog(catalog_path, recipe.source, bucket, refresh=refresh_catalog)
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


@contextmanager
def _lock(data_dir: Path) -> Iterator[None]:
    """Hold the directory's lock, saying so if another process has it."""
    lock = FileLock(data_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process prepares %s: waiting for it", data_dir)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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
    experiments = _list_experiments(collected.records, cells)
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
            "dropped": _sum_dropped(experiments),
            "files": [record["file"] for record in records.values()]
            + [describe_file(path, data_dir) for path in written],
        },
    )


def _list_experiments(records: list[dict[str, Any]], cells: pa.Table) -> list[dict[str, Any]]:
    """The content of `experiments.json`: what became of every experiment tried, in their order."""
    drawn = {
        count["values"]: count["counts"]
        for count in pc.value_counts(cells["experiment_id"].cast(pa.string())).to_pylist()
    }
    entries = []
    for record in records:
        n_drawn = drawn.get(record["experiment_id"], 0)
        if record["status"] == "failed":
            status, reason = "failed", record["reason"]
        elif n_drawn:
            status, reason = "drawn", None
        else:
            status, reason = "skipped", "no cell passes QC"
        report = {k: v for k, v in record.items() if k.startswith("n_")}
        entries.append(
            {
                "experiment_id": record["experiment_id"],
                "status": status,
                "reason": reason,
                "n_cells_drawn": n_drawn,
                **report,
            }
        )
    return entries


def _sum_dropped(experiments: list[dict[str, Any]]) -> dict[str, int]:
    """What is missing from the shards or was changed on the way, over all experiments tried."""

    def total(name: str) -> int:
        return sum(entry.get(name, 0) for entry in experiments)

    return {
        "experiments_failed": sum(entry["status"] == "failed" for entry in experiments),
        "experiments_skipped": sum(entry["status"] == "skipped" for entry in experiments),
        "cells_failing_quality": total("n_cells_in_file") - total("n_cells_passing"),
        "cells_over_cap": total("n_cells_passing") - total("n_cells"),
        "cells_not_drawn": total("n_cells") - total("n_cells_drawn"),
        "counts_saturated": total("n_saturated"),
    }
