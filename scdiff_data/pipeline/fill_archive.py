"""Experiments, in the order of the draw, downloaded and archived until the cells are enough.

Downloads run ahead in threads; archives are made one after another in the order of the draw, so
what the archive holds depends on the catalog, the seed and the settings alone. Each experiment
leaves a record of what became of it.
"""

import logging
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from scdiff_data.archive import read_obs, write_archive
from scdiff_data.base import Workers, describe_file, order_by_hash
from scdiff_data.errors import CountError, DownloadError
from scdiff_data.genes import key_of, sum_genes, write_statistics
from scdiff_data.pipeline.cell_table import split_archive
from scdiff_data.pipeline.options import PrepareOptions
from scdiff_data.pipeline.recipe import Recipe
from scdiff_data.reading import GeneAxis, read_gene_axis
from scdiff_data.sources import Bucket, CatalogRow, download, read_rows
from scdiff_data.store import DataDirectory, ExperimentRecord, Records

logger = logging.getLogger(__name__)

_MIN_TRIED = 10
"""Experiments tried before the fraction of failed ones can stop the run."""


@dataclass(frozen=True)
class FilledArchive:
    """An archive with cells enough.

    Parameters
    ----------
    axis
        The reference genes.
    records
        What became of the experiments tried, in the order of the draw.
    """

    axis: GeneAxis
    records: Sequence[ExperimentRecord]


def fill_archive(
    recipe: Recipe,
    directory: DataDirectory,
    bucket: Bucket,
    candidates: pa.Table,
    options: PrepareOptions,
) -> FilledArchive:
    """Try experiments in the order of the draw until `cell_count` cells are in.

    Parameters
    ----------
    recipe
        What is wanted.
    directory
        Where archives, their records and statistics, downloads and the reference genes go.
    bucket
        Where the catalog's files are.
    candidates
        The catalog's rows that the draw is from.
    options
        How it is done.

    Raises
    ------
    ValueError
        If all experiments together have too few cells.
    DownloadError
        If the bucket cannot be read, or too many experiments failed.
    """
    rows, wanted = read_rows(candidates), recipe.cell_count
    waiting = deque(order_by_hash(list(rows), seed=recipe.seed, purpose="draw"))
    ahead: deque[tuple[CatalogRow, Future[Path] | None]] = deque()
    filler = _Filler(recipe, directory, options)
    find = filler.known.find
    # The genes of an earlier run; `axis` is set once this run's first cells have confirmed them.
    stored = GeneAxis.read(directory.genes) if directory.genes.exists() else None
    axis: GeneAxis | None = None
    records: list[ExperimentRecord] = []
    n_cells = 0
    with (
        _fetching(bucket, directory, options) as fetch,
        tqdm(total=wanted, desc="archive", unit="cell", disable=None) as bar,
    ):
        while wanted is None or n_cells < wanted:
            # Never fetch more than can be needed: QC only takes cells away.
            while waiting and len(ahead) <= options.n_threads:
                most = n_cells + sum(filler.most_cells(row) for row, _ in ahead)
                if wanted is not None and most >= wanted:
                    break
                row = rows[waiting.popleft()]
                ahead.append((row, None if find(row, axis or stored) else fetch(row)))
            if not ahead:
                break
            row, future = ahead.popleft()
            record = find(row, axis or stored, is_reference=axis is None)
            if record is None:
                record = filler.convert(row, future or fetch(row), axis)
            records.append(record)
            if axis is None and record.n_cells:
                axis = GeneAxis.read(directory.genes)
                filler.warn_of_missing_columns(row)
                if recipe.genes is not None:
                    recipe.genes.find(axis)  # says at once if they are of no use here
            n_cells += record.n_cells
            bar.update(min(record.n_cells, (wanted or n_cells) - bar.n))
            _stop_if_too_many_failed(recipe, records)
    if axis is None or (wanted is not None and n_cells < wanted):
        raise ValueError(_explain_shortage(recipe, records, n_cells))
    return FilledArchive(axis, records)


class _Filler:
    """What is done with one experiment."""

    def __init__(self, recipe: Recipe, directory: DataDirectory, options: PrepareOptions) -> None:
        self._recipe = recipe
        self._directory = directory
        self._options = options
        self._n_threads = min(options.n_threads, os.cpu_count() or 1)
        self.known = Records(directory, recipe.archive_key, retry_failed=options.retry_failed)

    def convert(
        self, row: CatalogRow, future: "Future[Path]", axis: GeneAxis | None
    ) -> ExperimentRecord:
        """Wait for the download, convert it, and leave the record of what came of it.

        Without an axis, the file's own genes become the reference, if it has cells.
        """
        target = self._directory.archive(row.experiment_id)
        try:
            source = future.result()
            used = axis or read_gene_axis(source)
            report = write_archive(
                source,
                target,
                experiment_id=row.experiment_id,
                axis=used,
                quality=self._recipe.quality,
                max_cells=self._recipe.max_cells_per_experiment,
                seed=self._recipe.seed,
                max_memory=self._options.max_memory,
                n_threads=self._n_threads,
            )
        except (DownloadError, CountError) as error:
            if isinstance(error, DownloadError) and not error.permanent:
                raise
            logger.warning("experiment %s is left out for good: %s", row.experiment_id, error)
            record = self.known.write(row, reason=str(error))
        else:
            digest, file = None, None
            if report.n_cells:
                if axis is None:
                    used.write(self._directory.genes)
                digest, file = used.digest, describe_file(target, self._directory.path)
                self._sum_genes(row, target, file.sha256)
            record = self.known.write(row, report=report, axis=digest, file=file)
        if not self._options.keep_downloads:
            self._directory.download(row.experiment_id).unlink(missing_ok=True)
        return record

    def _sum_genes(self, row: CatalogRow, archive: Path, checksum: str) -> None:
        """Sum the genes while the archive is in memory; the draw cuts one experiment at most."""
        split_of_row = split_archive(self._recipe, row, archive)
        with Workers(self._n_threads) as workers:
            by_split = sum_genes(archive, split_of_row, workers)
        path = self._directory.statistics(row.experiment_id)
        write_statistics(path, key_of(checksum, split_of_row), by_split)

    def most_cells(self, row: CatalogRow) -> int:
        """Cells that an experiment can give at most."""
        cap = self._recipe.max_cells_per_experiment
        return row.n_cells if cap is None else min(row.n_cells, cap)

    def warn_of_missing_columns(self, row: CatalogRow) -> None:
        """Say at the first experiment what would otherwise be found out at the end of the run."""
        obs = read_obs(self._directory.archive(row.experiment_id))
        if missing := [n for n in self._recipe.columns if n not in {*obs, *row.columns}]:
            logger.warning(
                "labels or split.by name %s, which neither experiment %s nor the catalog has: if "
                "no experiment has it, the run fails at its end; the cells have %s, the catalog %s",
                missing,
                row.experiment_id,
                sorted(map(str, obs)),
                sorted(row.columns),
            )


@contextmanager
def _fetching(
    bucket: Bucket, directory: DataDirectory, options: PrepareOptions
) -> Iterator[Callable[[CatalogRow], "Future[Path]"]]:
    """A function that starts a download; leaving stops what still runs."""
    file_system, root = bucket.connect()
    cancelled = threading.Event()
    pool = ThreadPoolExecutor(options.n_threads, thread_name_prefix="download")
    bar = tqdm(desc="download", unit="B", unit_scale=True, total=0, disable=None)

    def fetch(row: CatalogRow) -> "Future[Path]":
        bar.total = (bar.total or 0) + (row.size or 0)
        return pool.submit(
            download,
            file_system,
            f"{root}/{row.path}",
            directory.download(row.experiment_id),
            size=row.size,
            checksum=row.checksum,
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
    if finished and not options.keep_downloads:
        shutil.rmtree(directory.downloads, ignore_errors=True)


def _stop_if_too_many_failed(recipe: Recipe, records: Sequence[ExperimentRecord]) -> None:
    failed = [record for record in records if record.failed]
    fraction = len(failed) / len(records)
    if len(records) >= _MIN_TRIED and fraction > recipe.max_failed_fraction:
        raise DownloadError(
            f"{len(failed)} of {len(records)} experiments failed, more than "
            f"max_failed_fraction={recipe.max_failed_fraction}; the last: {failed[-1].reason}"
        )


def _explain_shortage(recipe: Recipe, records: Sequence[ExperimentRecord], n_cells: int) -> str:
    failed = [record for record in records if record.failed]
    n_in_files = sum(r.report.n_cells_in_file for r in records if r.report is not None)
    reason = f"; {len(failed)} failed, the first: {failed[0].reason}" if failed else ""
    return (
        f"cell_count={recipe.cell_count}, but of {n_in_files} cells in {len(records)} "
        f"experiments only {n_cells} pass QC ({recipe.quality}) and the cap "
        f"(max_cells_per_experiment={recipe.max_cells_per_experiment}){reason}: lower "
        "cell_count, or loosen filters or QC"
    )
