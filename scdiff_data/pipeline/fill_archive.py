"""Experiments, in the order of the draw, downloaded and archived until the cells are enough.

Downloads run ahead in threads; archives are made in the order of the draw, those of one file
together, so what the archive holds depends on the catalog, the seed and the settings alone. Each
experiment leaves a record of what became of it.
"""

import logging
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa

from scdiff_data.archive import ObsReader
from scdiff_data.base import FileEntry
from scdiff_data.executors import Crew
from scdiff_data.fetching import Fetcher, fetching
from scdiff_data.pipeline.beginning import find_axis
from scdiff_data.pipeline.fill_elsewhere import Draw, FillElsewhere
from scdiff_data.pipeline.make_archives import ArchiveMaker
from scdiff_data.pipeline.verifying import explain_lack, find_damaged
from scdiff_data.reading import GeneAxis
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.sources import Bucket, CatalogRow, Rows, layout_of, sum_cells
from scdiff_data.store import (
    DataDirectory,
    ExperimentRecord,
    LossLimit,
    Records,
    explain_shortage,
)
from scdiff_data.telling import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilledArchive:
    """An archive with cells enough: its genes, and what became of the experiments tried."""

    axis: GeneAxis
    records: Sequence[ExperimentRecord]

    @property
    def files(self) -> dict[str, FileEntry]:
        """The archive of each experiment that has cells."""
        return {r.experiment_id: r.file for r in self.records if r.file is not None}


def fill_archive(
    recipe: Recipe,
    directory: DataDirectory,
    bucket: Bucket,
    candidates: pa.Table,
    options: PrepareOptions,
    *,
    n_bytes: int,
    crew: Crew | None = None,
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
    n_bytes
        Bytes that are likely to be fetched, for the progress that is shown.
    crew
        Who does it elsewhere; None does it here, in threads.

    Raises
    ------
    ValueError
        If all experiments together have too few cells.
    DownloadError
        If the bucket cannot be read, or too many experiments failed.
    """
    rows, wanted = Rows(candidates), recipe.cell_count
    maker = ArchiveMaker(recipe, directory, options)
    axis = find_axis(recipe, directory, bucket, rows, options)
    # The genes of an earlier run; `axis` is set once this run's first cells have confirmed them.
    stored = GeneAxis.find(directory.genes)
    draw = Draw(rows.draw(recipe.seed), wanted, axis, stored)
    maker.verify(draw.order, axis or stored, wanted)
    records: list[ExperimentRecord] = []
    is_checked = False
    usual = layout_of(recipe.source).max_failed_fraction
    limit = LossLimit(rows, recipe.max_failed_fraction, usual)
    if crew is None:
        coming = _fill_here(maker, recipe, directory, bucket, draw, options, n_bytes)
    else:
        coming = FillElsewhere(maker, crew, directory, bucket, draw, options).run()
    most = wanted or sum_cells(candidates, recipe.max_cells_per_experiment)
    with closing(coming), Progress("archive", "cells", most) as done:
        for row, record in coming:
            if record.failed and not maker.is_new(row):
                logger.warning(
                    "experiment %s was left out by an earlier run and is not tried again without "
                    "retry_failed: %s",
                    *(row.experiment_id, record.reason),
                )
            records.append(record)
            if record.n_cells and not is_checked:
                is_checked = True
                axis = axis or GeneAxis.read(directory.genes)
                _warn_of_missing_columns(recipe, row, directory.archive(row.experiment_id))
                if recipe.genes is not None:
                    recipe.genes.find(axis)  # says at once if they are of no use here
            if wanted is None:
                done.add(maker.most_cells(row))
            else:
                done.add(min(record.n_cells, wanted - done.n_done))
            limit.check(records, is_end=False)
    if not options.keep_downloads and directory.downloads.exists():
        _drop_downloads(directory.downloads, rows, is_shared="unit" in candidates.column_names)
    limit.check(records, is_end=True)
    return _check_enough(recipe, axis, records)


def _drop_downloads(folder: Path, rows: Rows, *, is_shared: bool) -> None:
    """Delete the catalog's files, those of an earlier run, too; the folder if nothing is left."""
    shared = {row.local_name for row in rows.values()} if is_shared else set()
    for path in list(folder.iterdir()):
        name = path.name.removesuffix(".part")
        if name in shared or (not is_shared and name.removesuffix(".h5ad") in rows):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _fill_here(
    maker: ArchiveMaker,
    recipe: Recipe,
    directory: DataDirectory,
    bucket: Bucket,
    draw: Draw,
    options: PrepareOptions,
    n_bytes: int,
) -> Generator[tuple[CatalogRow, ExperimentRecord]]:
    """Each experiment and its record, in the order of the draw; downloads run ahead in threads.

    An archive is checked, summed and waited for on its way to the disk while the next one is made.
    """
    order, wanted, axis, stored = draw.order, draw.wanted, draw.axis, draw.stored
    at = n_cells = 0
    ahead: deque[tuple[CatalogRow, Future[Path] | None]] = deque()
    made: deque[tuple[CatalogRow, Future[ExperimentRecord]]] = deque()
    with (
        fetching(
            *bucket.connect(),
            directory.downloads,
            n_threads=options.n_threads,
            in_place=layout_of(recipe.source).in_place,
            n_expected=n_bytes,
        ) as fetcher,
        ThreadPoolExecutor(1, "finish") as finisher,
    ):

        def finish() -> tuple[CatalogRow, ExperimentRecord]:
            row, coming = made.popleft()
            record = coming.result()
            if not options.keep_downloads and row.columns.get("unit") is None:
                fetcher.forget(row.local_name)
            return row, record

        while wanted is None or n_cells < wanted:
            # Never fetch more than can be needed: QC only takes cells away.
            while at < len(order) and len(ahead) <= options.n_threads:
                most = n_cells + sum(maker.most_cells(row) for row, _ in ahead)
                if wanted is not None and most >= wanted:
                    break
                row, at = order[at], at + 1
                is_there = maker.is_unreadable(row) or maker.find(row, axis or stored)
                ahead.append((row, None if is_there else _start(fetcher, row)))
            if not ahead:
                break
            row, future = ahead.popleft()
            record = maker.find(row, axis or stored, is_reference=axis is None)
            if record is None and maker.is_unreadable(row):
                record = maker.leave_out(row, str(row.columns["problem"]))
            elif record is None:
                following = chain((row for row, _ in ahead), order[at:])
                n_missing = None if wanted is None else wanted - n_cells
                together = maker.choose_together(row, following, axis or stored, n_missing)
                fetched = future or _start(fetcher, row)
                n_more, coming = maker.convert(row, fetched, axis, together, finisher)
                made.append((row, coming))
            if record is not None:
                n_more = record.n_cells
            n_cells += n_more
            if n_more:
                axis = axis or GeneAxis.read(directory.genes)
            while made and (record is not None or len(made) > 1 or made[0][1].done()):
                yield finish()
            if record is not None:
                yield row, record
        while made:
            yield finish()


def take_archives(
    recipe: Recipe, directory: DataDirectory, candidates: pa.Table, options: PrepareOptions
) -> FilledArchive:
    """The archives that `fill_archive` made in an earlier run; the source is not looked at.

    Parameters
    ----------
    recipe, directory, candidates, options
        As `fill_archive` takes them.

    Raises
    ------
    FileNotFoundError
        If one of them is not there, or not as it was written.
    ValueError
        If all experiments together have too few cells.
    DownloadError
        If too many experiments failed.
    """
    rows, wanted = Rows(candidates), recipe.cell_count
    axis = GeneAxis.find(directory.genes)
    known = Records(directory, recipe.archive_key)
    records: list[ExperimentRecord] = []
    n_cells = 0
    for row in rows.draw(recipe.seed):
        if wanted is not None and n_cells >= wanted:
            break
        is_reference = recipe.gene_axis == "first" and not n_cells
        record = known.find(row, axis, is_reference=is_reference)
        if record is None:
            lacking = str(directory.archive(row.experiment_id))
            raise FileNotFoundError(explain_lack(directory, lacking))
        records.append(record)
        n_cells += record.n_cells
    usual = layout_of(recipe.source).max_failed_fraction
    limit = LossLimit(rows, recipe.max_failed_fraction, usual)
    limit.check(records, is_end=True)
    filled = _check_enough(recipe, axis, records)
    if damaged := find_damaged(directory, records, options.n_threads):
        path = directory.archive(damaged[0].experiment_id)
        raise FileNotFoundError(explain_lack(directory, f"{path} as its record describes it"))
    return filled


def _check_enough(
    recipe: Recipe, axis: GeneAxis | None, records: Sequence[ExperimentRecord]
) -> FilledArchive:
    """The archives with their genes; raises ValueError if they have too few cells."""
    wanted, n_cells = recipe.cell_count, sum(record.n_cells for record in records)
    if axis is None or not n_cells or (wanted is not None and n_cells < wanted):
        known = (recipe.quality, recipe.max_cells_per_experiment)
        raise ValueError(explain_shortage(records, wanted, *known))
    return FilledArchive(axis, records)


def _start(fetcher: Fetcher, row: CatalogRow) -> "Future[Path]":
    return fetcher.fetch(row.path, row.local_name, row.size, row.checksum)


def _warn_of_missing_columns(recipe: Recipe, row: CatalogRow, archive: Path) -> None:
    """Say at the first experiment what would otherwise be found out at the end of the run."""
    with ObsReader(archive) as obs:
        columns = obs.columns
    if missing := [n for n in recipe.columns if n not in {*columns, *row.columns}]:
        logger.warning(
            "labels or split.by name %s, which neither experiment %s nor the catalog has: if "
            "no experiment has it, the run fails at its end; the cells have %s, the catalog %s",
            *(missing, row.experiment_id, sorted(columns), sorted(row.columns)),
        )
