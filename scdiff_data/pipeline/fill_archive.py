"""Experiments, in the order of the draw, downloaded and archived until the cells are enough.

Downloads run ahead in threads; archives are made one after another in the order of the draw, so
what the archive holds depends on the catalog, the seed and the settings alone. Each experiment
leaves a record of what became of it.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from scdiff_data.archive import read_obs, write_archive
from scdiff_data.base import Workers, describe_file, digest, order_by_hash
from scdiff_data.errors import CountError, DownloadError
from scdiff_data.fetching import Fetcher, fetching
from scdiff_data.genes import NamedGenes, key_of, sum_genes, write_statistics
from scdiff_data.pipeline.cell_table import split_archive
from scdiff_data.pipeline.recipe import Recipe
from scdiff_data.pipeline.settings import PrepareOptions
from scdiff_data.reading import GeneAxis, read_gene_axis, strip_versions
from scdiff_data.sources import (
    Bucket,
    CatalogRow,
    layout_of,
    match_cells,
    read_gene_axis_of,
    read_rows,
    read_units,
    survey_genes,
)
from scdiff_data.store import DataDirectory, ExperimentRecord, LossLimit, Records

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilledArchive:
    """An archive with cells enough: its genes, and what became of the experiments tried."""

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
    axis = _find_axis(recipe, directory, bucket, rows)
    # The genes of an earlier run; `axis` is set once this run's first cells have confirmed them.
    stored = GeneAxis.read(directory.genes) if directory.genes.exists() else None
    records: list[ExperimentRecord] = []
    n_cells, is_checked = 0, False
    layout = layout_of(recipe.source)
    limit = LossLimit(rows, recipe.max_failed_fraction, layout.max_failed_fraction)
    with (
        fetching(
            *bucket.connect(),
            directory.downloads,
            n_threads=options.n_threads,
            in_place=layout.in_place,
            keep=options.keep_downloads,
        ) as fetcher,
        tqdm(total=wanted, desc="archive", unit="cell", disable=None) as bar,
    ):
        while wanted is None or n_cells < wanted:
            # Never fetch more than can be needed: QC only takes cells away.
            while waiting and len(ahead) <= options.n_threads:
                most = n_cells + sum(filler.most_cells(row) for row, _ in ahead)
                if wanted is not None and most >= wanted:
                    break
                row = rows[waiting.popleft()]
                is_there = filler.is_unreadable(row) or find(row, axis or stored)
                ahead.append((row, None if is_there else _start(fetcher, row)))
            if not ahead:
                break
            row, future = ahead.popleft()
            record = find(row, axis or stored, is_reference=axis is None)
            if record is None and filler.is_unreadable(row):
                record = filler.leave_out(row, str(row.columns["problem"]))
            elif record is None:
                record = filler.convert(row, future or _start(fetcher, row), axis)
                if not options.keep_downloads and row.columns.get("unit") is None:
                    fetcher.forget(_local_name(row))
            elif record.failed and not filler.is_unreadable(row):
                logger.warning(
                    "experiment %s was left out by an earlier run and is not tried again without "
                    "retry_failed: %s",
                    *(row.experiment_id, record.reason),
                )
            records.append(record)
            if record.n_cells and not is_checked:
                is_checked = True
                axis = axis or GeneAxis.read(directory.genes)
                filler.warn_of_missing_columns(row)
                if recipe.genes is not None:
                    recipe.genes.find(axis)  # says at once if they are of no use here
            n_cells += record.n_cells
            bar.update(min(record.n_cells, (wanted or n_cells) - bar.n))
            limit.check(records, is_end=False)
    limit.check(records, is_end=True)
    if axis is None or not n_cells or (wanted is not None and n_cells < wanted):
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
            layout = layout_of(self._recipe.source)
            used = axis or read_gene_axis(source, layout.counts, layout.gene_ids)
            report = write_archive(
                source,
                target,
                experiment_id=row.experiment_id,
                axis=used,
                quality=self._recipe.quality,
                max_cells=self._recipe.max_cells_per_experiment,
                seed=self._recipe.seed,
                max_memory=self._options.max_memory,
                counts=layout.counts,
                gene_ids=layout.gene_ids,
                needed=self._recipe.columns,
                select=self._make_selection(row),
                fewest_known=0.5 if self._recipe.gene_axis == "first" else 0.0,
                n_threads=self._n_threads,
            )
        except (DownloadError, CountError) as error:
            if isinstance(error, DownloadError) and not error.permanent:
                raise
            record = self.leave_out(row, str(error))
        else:
            axis_digest, file = None, None
            if report.n_cells:
                if axis is None:
                    used.write(self._directory.genes)
                axis_digest, file = used.digest, describe_file(target, self._directory.path)
                self._sum_genes(row, target, file.sha256)
            record = self.known.write(row, report=report, axis=axis_digest, file=file)
        return record

    def _make_selection(self, row: CatalogRow) -> Callable[[pd.DataFrame], Any] | None:
        """Which of a file's cells are looked at; None for all."""
        filters, unit = self._recipe.cell_filters, row.columns.get("unit")
        if not filters and unit is None:
            return None
        key = layout_of(self._recipe.source).experiment_key

        def select(obs: pd.DataFrame) -> Any:
            belongs = np.ones(len(obs), bool)
            if unit is not None:
                belongs = (read_units(obs[key]) == unit).to_numpy()
            return belongs, belongs & match_cells(obs, filters)

        return select

    def is_unreadable(self, row: CatalogRow) -> bool:
        """Whether the catalog says what is wrong with an experiment's file."""
        return bool(row.columns.get("problem"))

    def leave_out(self, row: CatalogRow, reason: str) -> ExperimentRecord:
        """Leave a record of why an experiment is left out."""
        logger.warning("experiment %s is left out for good: %s", row.experiment_id, reason)
        return self.known.write(row, reason=reason)

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


def _local_name(row: CatalogRow) -> str:
    """Name of a fetched file, which many experiments may be in."""
    is_shared = row.columns.get("unit") is not None
    return f"{digest([row.path]) if is_shared else row.experiment_id}.h5ad"


def _start(fetcher: Fetcher, row: CatalogRow) -> "Future[Path]":
    return fetcher.fetch(row.path, _local_name(row), row.size, row.checksum)


def _find_axis(
    recipe: Recipe, directory: DataDirectory, bucket: Bucket, rows: Mapping[str, CatalogRow]
) -> GeneAxis | None:
    """The genes of all archives, written down; None where the first experiment's are taken."""
    how = recipe.gene_axis
    if isinstance(how, NamedGenes):
        names = strip_versions(how.names)
        axis = GeneAxis(tuple(names), tuple(how.symbols or names))
    elif how == "first":
        return None
    elif how == "source":
        axis = read_gene_axis_of(recipe.source, bucket)
    else:
        axis = survey_genes(bucket, rows, layout_of(recipe.source), take_all=how == "union")
    if not directory.genes.exists() or GeneAxis.read(directory.genes) != axis:
        directory.metadata.mkdir(parents=True, exist_ok=True)
        axis.write(directory.genes)
    if recipe.genes is not None:
        recipe.genes.find(axis)  # says at once if they are of no use here
    return axis


def _explain_shortage(recipe: Recipe, records: Sequence[ExperimentRecord], n_cells: int) -> str:
    failed = [record for record in records if record.failed]
    reports = [record.report for record in records if record.report is not None]
    n_in_files = sum(report.n_cells_in_file for report in reports)
    n_filtered = sum(report.n_filtered for report in reports)
    taken = f", {n_filtered} of them taken away by cell_filters," if n_filtered else ""
    reason = f"; {len(failed)} failed, the first: {failed[0].reason}" if failed else ""
    return (
        f"cell_count={recipe.cell_count}, but of {n_in_files} cells in {len(records)} "
        f"experiments{taken} only {n_cells} pass QC ({recipe.quality}) and the cap "
        f"(max_cells_per_experiment={recipe.max_cells_per_experiment}){reason}: lower "
        "cell_count, or loosen filters or QC"
    )
