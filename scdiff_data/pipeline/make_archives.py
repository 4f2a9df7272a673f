"""The archives of experiments: made, summed, and each recorded."""

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from scdiff_data.archive import ArchiveReport, ObsReader, write_archives
from scdiff_data.base import Workers, describe_file
from scdiff_data.errors import CountError, DownloadError
from scdiff_data.genes import key_of, sum_genes, write_statistics
from scdiff_data.pipeline.cell_table import split_archive
from scdiff_data.pipeline.verifying import find_damaged
from scdiff_data.reading import GeneAxis, read_gene_axis
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.sources import CatalogRow, assign_cells, layout_of
from scdiff_data.store import DataDirectory, ExperimentRecord, Records

logger = logging.getLogger(__name__)


class ArchiveMaker:
    """What is done with one experiment, or several of one file."""

    def __init__(self, recipe: Recipe, directory: DataDirectory, options: PrepareOptions) -> None:
        self._recipe = recipe
        self._directory = directory
        self._options = options
        self._n_threads = min(options.n_threads, os.cpu_count() or 1)
        self._known = Records(directory, recipe.archive_key, retry_failed=options.retry_failed)
        self._made: dict[str, ExperimentRecord] = {}  # in this run, with another one of its file
        self._shares: dict[str, float] = {}  # of a file's cells, what was kept of those looked at
        self._damaged: set[str] = set()  # experiments whose archives are to be made again
        self._alone: set[str] = set()  # files whose experiments are read one by one

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
    ) -> ExperimentRecord:
        """Wait for the download, convert it, and leave the records of what came of it.

        Without an axis, the file's own genes become the reference, if the experiment has cells.
        """
        group, layout = [row, *together], layout_of(self._recipe.source)
        units = [one.columns.get("unit") for one in group]
        needed = {*self._recipe.columns, *self._recipe.cell_filters, layout.experiment_key or ""}
        outcomes: dict[str, ArchiveReport | CountError]
        try:
            source = future.result()
            used = axis or read_gene_axis(
                source, layout.counts, layout.gene_ids, max_memory=self._options.max_memory
            )
            outcomes = write_archives(
                source,
                {r.experiment_id: self._directory.archive(r.experiment_id) for r in group},
                axis=used,
                quality=self._recipe.quality,
                max_cells=self._recipe.max_cells_per_experiment,
                seed=self._recipe.seed,
                max_memory=self._options.max_memory,
                counts=layout.counts,
                gene_ids=layout.gene_ids,
                needed=tuple(needed),
                assign=partial(
                    assign_cells,
                    units=units,
                    key=layout.experiment_key,
                    filters=self._recipe.cell_filters,
                ),
                fewest_known=0.5 if self._recipe.gene_axis == "first" else 0.0,
                n_threads=self._n_threads,
            )
        except (DownloadError, CountError) as error:
            if isinstance(error, DownloadError) and not error.permanent:
                raise
            if together:  # the fault may be in the cells of one alone
                self._alone.add(row.path)
                return self.convert(row, future, axis, [])
            return self.leave_out(row, str(error))
        records = {r.experiment_id: self._note(r, outcomes[r.experiment_id], used) for r in group}
        record = records.pop(row.experiment_id)
        if axis is None and record.n_cells:
            used.write(self._directory.genes)
        if axis is not None or record.n_cells:
            self._made |= records
            n_kept = record.n_cells + sum(other.n_cells for other in records.values())
            self._shares[row.path] = max(n_kept / max(sum(map(self.most_cells, group)), 1), 0.01)
        return record

    def _note(
        self, row: CatalogRow, outcome: ArchiveReport | CountError, axis: GeneAxis
    ) -> ExperimentRecord:
        """Sum the genes of what was archived, and leave the record."""
        self._damaged.discard(row.experiment_id)
        if isinstance(outcome, CountError):
            return self.leave_out(row, str(outcome))
        if not outcome.n_cells:
            return self._known.write(row, report=outcome)
        target = self._directory.archive(row.experiment_id)
        file = describe_file(target, self._directory.path)
        # While the archive is in memory; the draw cuts one experiment at most.
        split_of_row = split_archive(self._recipe, row, target)
        with Workers(self._n_threads) as workers:
            by_split = sum_genes(target, split_of_row, workers)
        path = self._directory.statistics(row.experiment_id)
        write_statistics(path, key_of(file.sha256, split_of_row), by_split)
        return self._known.write(row, report=outcome, axis=axis.digest, file=file)

    def is_new(self, row: CatalogRow) -> bool:
        """Whether what is known of an experiment was found out in this run."""
        return row.experiment_id in self._made or self.is_unreadable(row)

    def is_unreadable(self, row: CatalogRow) -> bool:
        """Whether the catalog says what is wrong with an experiment's file."""
        return bool(row.columns.get("problem"))

    def leave_out(self, row: CatalogRow, reason: str) -> ExperimentRecord:
        """Leave a record of why an experiment is left out."""
        logger.warning("experiment %s is left out for good: %s", row.experiment_id, reason)
        return self._known.write(row, reason=reason)

    def most_cells(self, row: CatalogRow) -> int:
        """Cells that an experiment can give at most."""
        cap = self._recipe.max_cells_per_experiment
        return row.n_cells if cap is None else min(row.n_cells, cap)

    def warn_of_missing_columns(self, row: CatalogRow) -> None:
        """Say at the first experiment what would otherwise be found out at the end of the run."""
        with ObsReader(self._directory.archive(row.experiment_id)) as obs:
            columns = obs.columns
        if missing := [n for n in self._recipe.columns if n not in {*columns, *row.columns}]:
            logger.warning(
                "labels or split.by name %s, which neither experiment %s nor the catalog has: if "
                "no experiment has it, the run fails at its end; the cells have %s, the catalog %s",
                missing,
                row.experiment_id,
                sorted(columns),
                sorted(row.columns),
            )
