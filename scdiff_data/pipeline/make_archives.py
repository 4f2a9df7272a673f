"""The archives of experiments: made, summed, and each recorded."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from scdiff_data.archive import ArchiveReport, write_archives
from scdiff_data.base import FileEntry, Workers, describe_file, flush_file
from scdiff_data.errors import CountError, DownloadError
from scdiff_data.executors import count_cores
from scdiff_data.genes import key_of, sum_genes, write_statistics
from scdiff_data.pipeline.cell_table import split_archive
from scdiff_data.pipeline.verifying import find_damaged
from scdiff_data.reading import GeneAxis, read_gene_axis
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.sources import CatalogRow, FileLayout, StoredSource, assign_cells, layout_of
from scdiff_data.store import DataDirectory, ExperimentRecord, Records

logger = logging.getLogger(__name__)

Outcome = ArchiveReport | CountError
"""What became of an experiment: its report, or why it cannot be read although others can."""


@dataclass(frozen=True)
class FileJob:
    """What is to be made of a file; it can be pickled.

    Parameters
    ----------
    recipe, layout
        What is wanted, and how the file is read.
    rows
        The file's experiments.
    axis
        The reference genes; None takes the file's own.
    max_memory, n_threads
        What it may take.
    """

    recipe: Recipe
    layout: FileLayout
    rows: tuple[CatalogRow, ...]
    axis: GeneAxis | None
    max_memory: int
    n_threads: int


def write_group(
    job: FileJob, source: Path, place: DataDirectory
) -> tuple[dict[str, Outcome], GeneAxis]:
    """Convert a file into archives; gives what became of each experiment, and the genes.

    Parameters
    ----------
    job
        What is to be made.
    source
        The file.
    place
        The data directory, or another folder that becomes like one.

    Raises
    ------
    CountError
        If the file cannot be read.
    """
    recipe, layout = job.recipe, job.layout
    needed = {*recipe.columns, *recipe.cell_filters, layout.experiment_key or ""}
    known = layout.counts, layout.gene_ids
    axis = job.axis or read_gene_axis(source, *known, max_memory=job.max_memory)
    outcomes = write_archives(
        source,
        {row.experiment_id: place.archive(row.experiment_id) for row in job.rows},
        axis=axis,
        quality=recipe.quality,
        max_cells=recipe.max_cells_per_experiment,
        seed=recipe.seed,
        max_memory=job.max_memory,
        counts=layout.counts,
        gene_ids=layout.gene_ids,
        needed=tuple(needed),
        assign=partial(
            assign_cells,
            units=[row.columns.get("unit") for row in job.rows],
            key=layout.experiment_key,
            filters=recipe.cell_filters,
        ),
        fewest_known=0.5 if recipe.gene_axis == "first" else 0.0,
        n_threads=job.n_threads,
    )
    return outcomes, axis


def sum_archive(job: FileJob, row: CatalogRow, place: DataDirectory) -> FileEntry:
    """Sum an archive's genes while it is in memory, and put both on the disk; gives the archive."""
    target = place.archive(row.experiment_id)
    file = describe_file(target, place.path)
    split_of_row = split_archive(job.recipe, row, target)  # the draw cuts one experiment at most
    with Workers(job.n_threads) as workers:
        by_split = sum_genes(target, split_of_row, workers)
    key = key_of(file.sha256, split_of_row)
    write_statistics(place.statistics(row.experiment_id), key, by_split)
    flush_file(target)
    return file


class ArchiveMaker:
    """What is done with one experiment, or several of one file."""

    def __init__(self, recipe: Recipe, directory: DataDirectory, options: PrepareOptions) -> None:
        self._recipe = recipe
        kind = {"source": recipe.source.settings()["source"]}
        self._recipe_alone = recipe.of_source(StoredSource(kind))  # a source may list many files
        self._directory = directory
        self._options = options
        self._n_threads = min(options.n_threads, count_cores())
        self._known = Records(directory, recipe.archive_key, retry_failed=options.retry_failed)
        self._made: dict[str, ExperimentRecord] = {}  # in this run, with another one of its file
        self._shares: dict[str, float] = {}  # of a file's cells, what was kept of those looked at
        self._damaged: set[str] = set()  # experiments whose archives are to be made again
        self._alone: set[str] = set()  # files whose experiments are read one by one
        self._left_out: set[str] = set()  # in this run

    def find(
        self, row: CatalogRow, axis: GeneAxis | None, *, is_reference: bool = False
    ) -> ExperimentRecord | None:
        """What became of an experiment, in this run or an earlier one; None if it is to be made."""
        made = self._made.get(row.experiment_id)
        if made is not None or row.experiment_id in self._damaged:
            return made
        return self._known.find(row, axis, is_reference=is_reference)

    def verify(
        self, rows: Iterable[CatalogRow], axis: GeneAxis | None, n_wanted: int | None
    ) -> None:
        """Read the archives that an earlier run left, as far as a draw can need them.

        Parameters
        ----------
        rows
            The experiments in the order of the draw.
        axis
            The reference genes, as far as they are known.
        n_wanted
            Cells that are drawn; None takes all there are.
        """
        found, n_cells = [], 0
        for row in rows:
            if n_wanted is not None and n_cells >= n_wanted:
                break
            if (record := self.find(row, axis)) is not None:
                found.append(record)
                n_cells += record.n_cells
        for record in find_damaged(self._directory, found, self._options.n_threads):
            logger.warning(
                "%s has other bytes than its record says: it is made again",
                self._directory.archive(record.experiment_id),
            )
            self._damaged.add(record.experiment_id)

    def choose_together(
        self,
        row: CatalogRow,
        following: Iterable[CatalogRow],
        axis: GeneAxis | None,
        n_missing: int | None,
    ) -> list[CatalogRow]:
        """Further experiments of a row's file that the draw will come to: one reading serves all.

        Parameters
        ----------
        row, following
            The experiment to be made, and those after it in the order of the draw.
        axis
            The reference genes, as far as they are known.
        n_missing
            Cells that the draw still lacks; None takes all there are.
        """
        if row.columns.get("unit") is None or row.path in self._alone:
            return []
        together, share = [], self._shares.get(row.path, 1.0)
        n_expected = share * self.most_cells(row)
        for other in following:
            if n_missing is not None and n_expected >= n_missing:
                break
            n_expected += share * self.most_cells(other)
            is_open = other.path == row.path and not self.is_unreadable(other)
            if is_open and self.find(other, axis) is None:
                together.append(other)
        return together

    def convert(
        self,
        row: CatalogRow,
        future: "Future[Path]",
        axis: GeneAxis | None,
        together: Sequence[CatalogRow],
        finisher: Executor,
    ) -> "tuple[int, Future[ExperimentRecord]]":
        """Wait for the download, convert it, and let the finisher record what came of it.

        Without an axis, the file's own genes become the reference, if the experiment has cells;
        gives their number, and the record, which comes later.
        """
        job = self.plan_file([row, *together], axis, self._n_threads)
        try:
            outcomes, used = write_group(job, future.result(), self._directory)
        except (DownloadError, CountError) as error:
            if isinstance(error, DownloadError) and not error.permanent:
                raise
            if together:
                self.read_alone(row)
                return self.convert(row, future, axis, [], finisher)
            return 0, finisher.submit(self.leave_out, row, str(error))
        beside = replace(job, n_threads=max(1, job.n_threads // 2))  # the next is made meanwhile
        finish = partial(sum_archive, beside, place=self._directory)
        record = finisher.submit(self.settle, job, outcomes, used, finish)
        if axis is None or row.columns.get("unit") is not None:  # what follows asks for all of it
            record.result()
        return getattr(outcomes[row.experiment_id], "n_cells", 0), record

    def plan_file(
        self, group: Sequence[CatalogRow], axis: GeneAxis | None, n_threads: int
    ) -> FileJob:
        """What is to be made of a file."""
        return FileJob(
            *(self._recipe_alone, layout_of(self._recipe.source), tuple(group), axis),
            max_memory=self._options.max_memory,
            n_threads=n_threads,
        )

    def read_alone(self, row: CatalogRow) -> None:
        """Take a file's experiments one by one: the fault may be in the cells of one alone."""
        self._alone.add(row.path)

    def settle(
        self,
        job: FileJob,
        outcomes: Mapping[str, Outcome],
        axis: GeneAxis,
        finish: Callable[[CatalogRow], FileEntry],
    ) -> ExperimentRecord:
        """Leave the records of what came of a file; gives the first experiment's.

        Parameters
        ----------
        job, outcomes, axis
            What was to be made, what was, and the genes that it is over.
        finish
            Gives an archive, which is then in its place with its statistics.
        """
        row, *others = job.rows
        note = partial(self._note, axis=axis, finish=finish)
        record = note(row, outcomes[row.experiment_id])
        records = {one.experiment_id: note(one, outcomes[one.experiment_id]) for one in others}
        if job.axis is None and record.n_cells:
            axis.write(self._directory.genes)
        if job.axis is not None or record.n_cells:
            self._made |= records
            n_kept = record.n_cells + sum(one.n_cells for one in records.values())
            n_most = max(sum(map(self.most_cells, job.rows)), 1)
            self._shares[row.path] = max(n_kept / n_most, 0.01)
        return record

    def _note(
        self,
        row: CatalogRow,
        outcome: Outcome,
        axis: GeneAxis,
        finish: Callable[[CatalogRow], FileEntry],
    ) -> ExperimentRecord:
        self._damaged.discard(row.experiment_id)
        if isinstance(outcome, CountError):
            return self.leave_out(row, str(outcome))
        if not outcome.n_cells:
            return self._known.write(row, report=outcome)
        return self._known.write(row, report=outcome, axis=axis.digest, file=finish(row))

    def is_new(self, row: CatalogRow) -> bool:
        """Whether this run, or the catalog, says why an experiment is left out."""
        return row.experiment_id in self._left_out or self.is_unreadable(row)

    def is_unreadable(self, row: CatalogRow) -> bool:
        """Whether the catalog says what is wrong with an experiment's file."""
        return bool(row.columns.get("problem"))

    def leave_out(self, row: CatalogRow, reason: str) -> ExperimentRecord:
        """Leave a record of why an experiment is left out."""
        logger.warning("experiment %s is left out for good: %s", row.experiment_id, reason)
        self._left_out.add(row.experiment_id)
        return self._known.write(row, reason=reason)

    def most_cells(self, row: CatalogRow) -> int:
        """Cells that an experiment can give at most."""
        cap = self._recipe.max_cells_per_experiment
        return row.n_cells if cap is None else min(row.n_cells, cap)
