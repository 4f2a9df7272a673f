"""Experiments, in the order of the draw, downloaded and archived until the cells are enough.

Downloads run ahead in threads; archives are made one after another in the order of the draw, so
what is collected depends on the catalog, the seed and the settings alone. Each experiment leaves a
record, `cells/{experiment_id}.json`: what was archived under which settings, or why it failed for
good.
"""

import json
import logging
import os
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from scdiff_data.archive import write_archive
from scdiff_data.download import download
from scdiff_data.draw import order_experiments
from scdiff_data.errors import CountError, DownloadError
from scdiff_data.files import describe_file, digest, write_json
from scdiff_data.genes import GeneAxis
from scdiff_data.h5ad import read_gene_axis
from scdiff_data.recipe import SCHEMA_VERSION, Recipe
from scdiff_data.sources import Bucket

logger = logging.getLogger(__name__)

_ARCHIVED_CELL_BYTES = 16_000
"""About what an archived cell takes on disk, for the check of free space."""
_MIN_TRIED = 10


@dataclass(frozen=True)
class Collected:
    """The experiments that were tried, with their records, in the order of the draw."""

    axis: GeneAxis
    records: list[dict[str, Any]]


class Collector:
    """Collects experiments into a data directory.

    Parameters
    ----------
    recipe
        What is wanted.
    data_dir
        Where `cells/`, `downloads/` and `metadata/genes.parquet` go.
    bucket
        Where the catalog's files are.
    n_threads
        Downloads at a time.
    max_memory
        Bytes that an archive's conversion may take.
    keep_downloads
        Whether source files stay in `downloads/`.
    retry_failed
        Whether experiments that failed for good are tried again.
    """

    def __init__(
        self,
        recipe: Recipe,
        data_dir: Path,
        bucket: Bucket,
        *,
        n_threads: int,
        max_memory: int,
        keep_downloads: bool,
        retry_failed: bool,
    ) -> None:
        self._recipe, self._data_dir, self._bucket = recipe, data_dir, bucket
        self._n_threads, self._max_memory = n_threads, max_memory
        self._keep_downloads, self._retry_failed = keep_downloads, retry_failed
        self._downloads = data_dir / "downloads"
        self._genes_path = data_dir / "metadata" / "genes.parquet"
        self._source_kind = recipe.source.settings()["source"]

    def collect(self, catalog: pa.Table) -> Collected:
        """Try experiments in the order of the draw until `cell_count` cells are in.

        Raises
        ------
        ValueError
            If all experiments together have too few cells.
        DownloadError
            If the bucket cannot be read, or too many experiments failed.
        """
        wanted = self._recipe.cell_count
        rows = {row["experiment_id"]: row for row in catalog.to_pylist()}
        self._check_disk(rows)
        waiting = deque(order_experiments(list(rows), seed=self._recipe.seed))
        ahead: deque[tuple[dict[str, Any], Future[Path] | None]] = deque()
        axis: GeneAxis | None = None
        stored = GeneAxis.read(self._genes_path) if self._genes_path.exists() else None
        records: list[dict[str, Any]] = []
        n_cells = 0
        with (
            self._fetching() as fetch,
            tqdm(total=wanted, desc="archive", unit="cell", disable=None) as bar,
        ):
            while wanted is None or n_cells < wanted:
                # Never fetch more than can be needed: QC only takes cells away.
                while waiting and len(ahead) <= self._n_threads:
                    most = n_cells + sum(self._most_cells(row) for row, _ in ahead)
                    if wanted is not None and most >= wanted:
                        break
                    row = rows[waiting.popleft()]
                    known = self._known(row, axis or stored)
                    ahead.append((row, None if known else fetch(row)))
                if not ahead:
                    break
                row, future = ahead.popleft()
                record = self._known(row, axis or stored, is_reference=axis is None)
                if record is None:
                    record = self._archive(row, future or fetch(row), axis)
                records.append(record)
                if axis is None and record.get("n_cells"):
                    axis = GeneAxis.read(self._genes_path)
                n_cells += record.get("n_cells", 0)
                bar.update(min(record.get("n_cells", 0), (wanted or n_cells) - bar.n))
                self._stop_if_too_many_failed(records)
        if axis is None or (wanted is not None and n_cells < wanted):
            self._explain_shortage(records, n_cells)
        assert axis is not None
        return Collected(axis, records)

    def _known(
        self, row: Mapping[str, Any], axis: GeneAxis | None, *, is_reference: bool = False
    ) -> dict[str, Any] | None:
        """The experiment's record, if an earlier run left one that still holds."""
        path = self._record_path(row)
        if not path.exists():
            return None
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if record["key"] != self._key(row):
            return None
        if record["status"] == "failed":
            return None if self._retry_failed else record
        if record["n_cells"] == 0:
            return record
        archive = self._data_dir / record["file"]["path"]
        whole = archive.exists() and archive.stat().st_size == record["file"]["size"]
        same_axis = axis is not None and record["axis"] == axis.digest
        if is_reference:  # the first experiment with cells sets the axis: its own
            same_axis &= record["file_genes"] == record["axis"]
        return record if whole and same_axis else None

    def _archive(
        self, row: Mapping[str, Any], future: "Future[Path]", axis: GeneAxis | None
    ) -> dict[str, Any]:
        """Wait for the download, convert it, and leave the record of what came of it."""
        experiment_id = row["experiment_id"]
        record = {"experiment_id": experiment_id, "key": self._key(row)}
        target = self._data_dir / "cells" / f"{experiment_id}.h5ad"
        try:
            source = future.result()
            used = axis or read_gene_axis(source)
            report = write_archive(
                source,
                target,
                experiment_id=experiment_id,
                axis=used,
                quality=self._recipe.quality,
                max_cells=self._recipe.max_cells_per_experiment,
                seed=self._recipe.seed,
                max_memory=self._max_memory,
                n_threads=min(self._n_threads, os.cpu_count() or 1),
            )
        except (DownloadError, CountError) as error:
            if isinstance(error, DownloadError) and not error.permanent:
                raise
            logger.warning("experiment %s is left out for good: %s", experiment_id, error)
            record |= {"status": "failed", "reason": str(error)}
        else:
            record |= {"status": "archived", **report.to_dict()}
            if report.n_cells:
                if axis is None:
                    used.write(self._genes_path)
                record |= {"axis": used.digest, "file": describe_file(target, self._data_dir)}
        write_json(self._record_path(row), record)
        if not self._keep_downloads:
            (self._downloads / f"{experiment_id}.h5ad").unlink(missing_ok=True)
        return record

    @contextmanager
    def _fetching(self) -> Iterator[Any]:
        """A function that starts a download; leaving stops what still runs."""
        file_system, root = self._bucket.connect()
        cancelled = threading.Event()
        pool = ThreadPoolExecutor(self._n_threads, thread_name_prefix="download")
        bar = tqdm(desc="download", unit="B", unit_scale=True, total=0, disable=None)

        def fetch(row: Mapping[str, Any]) -> "Future[Path]":
            bar.total = (bar.total or 0) + (row["size"] or 0)
            local = self._downloads / f"{row['experiment_id']}.h5ad"
            return pool.submit(
                download,
                file_system,
                f"{root}/{row['path']}",
                local,
                size=row["size"],
                checksum=row["checksum"],
                cancelled=cancelled,
                report_bytes=bar.update,
            )

        finished = False
        try:
            yield fetch
            finished = True
        finally:
            cancelled.set()
            pool.shutdown(cancel_futures=True)
            bar.close()
        if finished and not self._keep_downloads:
            shutil.rmtree(self._downloads, ignore_errors=True)

    def _key(self, row: Mapping[str, Any]) -> str:
        """Fingerprint of everything but the gene axis that an archive depends on."""
        recipe, quality = self._recipe, self._recipe.quality
        cap = recipe.max_cells_per_experiment
        return digest(
            [
                SCHEMA_VERSION,
                self._source_kind,
                [row["path"], row["size"], row["checksum"]],
                [quality.min_genes, quality.min_counts, quality.max_genes],
                None if cap is None else [cap, recipe.seed],
            ]
        )

    def _most_cells(self, row: Mapping[str, Any]) -> int:
        cap = self._recipe.max_cells_per_experiment
        return int(row["n_cells"] if cap is None else min(row["n_cells"], cap))

    def _record_path(self, row: Mapping[str, Any]) -> Path:
        return self._data_dir / "cells" / f"{row['experiment_id']}.json"

    def _check_disk(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse to start what the disk cannot hold."""
        most = sum(self._most_cells(row) for row in rows.values())
        recipe = self._recipe
        if recipe.cell_count is not None and most < recipe.cell_count:
            raise ValueError(
                f"cell_count={recipe.cell_count}, but the {len(rows)} experiments that pass the "
                f"filters hold at most {most} cells: lower cell_count, loosen filters, or raise "
                "max_cells_per_experiment"
            )
        shard_bytes = 2 * recipe.n_hvgs if recipe.n_hvgs else _ARCHIVED_CELL_BYTES * 5
        archived = sum(path.stat().st_size for path in (self._data_dir / "cells").glob("*.h5ad"))
        needed = (recipe.cell_count or most) * (_ARCHIVED_CELL_BYTES + shard_bytes) - archived
        free = shutil.disk_usage(self._data_dir).free
        if needed > free:
            raise OSError(
                f"{self._data_dir} has {free / 1e9:.1f} GB free, the cells need about "
                f"{needed / 1e9:.1f} GB: free some, set data_dir to a larger disk, or lower "
                "cell_count"
            )

    def _stop_if_too_many_failed(self, records: list[dict[str, Any]]) -> None:
        failed = [record for record in records if record["status"] == "failed"]
        fraction = len(failed) / len(records)
        if len(records) >= _MIN_TRIED and fraction > self._recipe.max_failed_fraction:
            raise DownloadError(
                f"{len(failed)} of {len(records)} experiments failed, more than "
                f"max_failed_fraction={self._recipe.max_failed_fraction}; the last: "
                f"{failed[-1]['reason']}"
            )

    def _explain_shortage(self, records: list[dict[str, Any]], n_cells: int) -> None:
        failed = [record for record in records if record["status"] == "failed"]
        n_in_files = sum(record.get("n_cells_in_file", 0) for record in records)
        reason = f"; {len(failed)} failed, the first: {failed[0]['reason']}" if failed else ""
        quality = self._recipe.quality
        raise ValueError(
            f"cell_count={self._recipe.cell_count}, but of {n_in_files} cells in {len(records)} "
            f"experiments only {n_cells} pass QC ({quality}) and the cap "
            f"(max_cells_per_experiment={self._recipe.max_cells_per_experiment}){reason}: lower "
            "cell_count, or loosen filters or QC"
        )
