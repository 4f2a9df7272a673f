"""Experiments, in the order of the draw, downloaded and archived until the cells are enough.

Downloads run ahead in threads; archives are made one after another in the order of the draw, so
what is collected depends on the catalog, the seed and the settings alone. Each experiment leaves a
record of what became of it.
"""

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

from scdiff_data.archive import GeneAxis, read_gene_axis, read_obs, write_archive
from scdiff_data.base import Workers, describe_file, order_experiments
from scdiff_data.errors import CountError, DownloadError
from scdiff_data.genes import NamedGenes, key_of, sum_genes, write_statistics
from scdiff_data.pipeline.cell_table import split_experiment
from scdiff_data.pipeline.recipe import Recipe
from scdiff_data.sources import Bucket, download
from scdiff_data.store import DataDirectory, Records

logger = logging.getLogger(__name__)


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
    directory
        Where archives, their records, downloads and the reference genes go.
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
        directory: DataDirectory,
        bucket: Bucket,
        *,
        n_threads: int,
        max_memory: int,
        keep_downloads: bool,
        retry_failed: bool,
    ) -> None:
        self._recipe, self._directory, self._bucket = recipe, directory, bucket
        self._n_threads, self._max_memory = n_threads, max_memory
        self._n_conversion_threads = min(n_threads, os.cpu_count() or 1)
        self._keep_downloads = keep_downloads
        self._records = Records(directory, recipe.archive_key, retry_failed=retry_failed)

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
        waiting = deque(order_experiments(list(rows), seed=self._recipe.seed))
        ahead: deque[tuple[dict[str, Any], Future[Path] | None]] = deque()
        axis: GeneAxis | None = None
        genes = self._directory.genes
        stored = GeneAxis.read(genes) if genes.exists() else None
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
                    known = self._records.find(row, axis or stored)
                    ahead.append((row, None if known else fetch(row)))
                if not ahead:
                    break
                row, future = ahead.popleft()
                record = self._records.find(row, axis or stored, is_reference=axis is None)
                if record is None:
                    record = self._archive(row, future or fetch(row), axis)
                records.append(record)
                if axis is None and record.get("n_cells"):
                    axis = GeneAxis.read(genes)
                    self._warn_of_missing_columns(row)
                    if isinstance(self._recipe.genes, NamedGenes):
                        self._recipe.genes.find(axis)  # says at once if they are of no use here
                n_cells += record.get("n_cells", 0)
                bar.update(min(record.get("n_cells", 0), (wanted or n_cells) - bar.n))
                self._stop_if_too_many_failed(records)
        if axis is None or (wanted is not None and n_cells < wanted):
            self._explain_shortage(records, n_cells)
        assert axis is not None
        return Collected(axis, records)

    def _archive(
        self, row: Mapping[str, Any], future: "Future[Path]", axis: GeneAxis | None
    ) -> dict[str, Any]:
        """Wait for the download, convert it, and leave the record of what came of it."""
        experiment_id = row["experiment_id"]
        record: dict[str, Any]
        target = self._directory.archive(experiment_id)
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
                n_threads=self._n_conversion_threads,
            )
        except (DownloadError, CountError) as error:
            if isinstance(error, DownloadError) and not error.permanent:
                raise
            logger.warning("experiment %s is left out for good: %s", experiment_id, error)
            record = {"status": "failed", "reason": str(error)}
        else:
            record = {"status": "archived", **report.to_dict()}
            if report.n_cells:
                if axis is None:
                    used.write(self._directory.genes)
                file = describe_file(target, self._directory.path)
                record |= {"axis": used.digest, "file": file}
                self._sum_genes(row, target, file["sha256"])
        record = self._records.write(row, record)
        if not self._keep_downloads:
            self._directory.download(experiment_id).unlink(missing_ok=True)
        return record

    def _sum_genes(self, row: Mapping[str, Any], archive: Path, checksum: str) -> None:
        """Sum the genes while the archive is in memory; the draw cuts one experiment at most."""
        experiment_id = row["experiment_id"]
        split_of_row = split_experiment(self._recipe, experiment_id, read_obs(archive), row)
        with Workers(self._n_conversion_threads) as workers:
            by_split = sum_genes(archive, split_of_row, workers)
        path = self._directory.statistics(experiment_id)
        write_statistics(path, key_of(checksum, split_of_row), by_split)

    @contextmanager
    def _fetching(self) -> Iterator[Any]:
        """A function that starts a download; leaving stops what still runs."""
        file_system, root = self._bucket.connect()
        cancelled = threading.Event()
        pool = ThreadPoolExecutor(self._n_threads, thread_name_prefix="download")
        bar = tqdm(desc="download", unit="B", unit_scale=True, total=0, disable=None)

        def fetch(row: Mapping[str, Any]) -> "Future[Path]":
            bar.total = (bar.total or 0) + (row["size"] or 0)
            local = self._directory.download(row["experiment_id"])
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
            shutil.rmtree(self._directory.downloads, ignore_errors=True)

    def _most_cells(self, row: Mapping[str, Any]) -> int:
        cap = self._recipe.max_cells_per_experiment
        return int(row["n_cells"] if cap is None else min(row["n_cells"], cap))

    def _warn_of_missing_columns(self, row: Mapping[str, Any]) -> None:
        """Say at the first experiment what would otherwise be found out at the end of the run."""
        obs = read_obs(self._directory.archive(row["experiment_id"]))
        if missing := [name for name in self._recipe.columns if name not in {*obs, *row}]:
            logger.warning(
                "labels or split.by name %s, which neither experiment %s nor the catalog has: if "
                "no experiment has it, the run fails at its end; the cells have %s, the catalog %s",
                missing,
                row["experiment_id"],
                sorted(map(str, obs)),
                sorted(row),
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
