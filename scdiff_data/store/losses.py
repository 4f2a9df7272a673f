"""What a run lost on the way from files to cells, as one table."""

from collections.abc import Mapping, Sequence
from typing import Any

from scdiff_data.archive import QualityFilter
from scdiff_data.errors import DownloadError
from scdiff_data.sources import CatalogRow
from scdiff_data.store.records import ExperimentRecord

_MOST_NAMED = 20
"""Experiments left out that are named one by one."""


_MIN_TRIED = 10
"""Experiments tried before a fraction of lost ones can stop a run that still goes on."""


class LossLimit:
    """How many experiments, or cells of theirs, may be lost before the run stops.

    Parameters
    ----------
    rows
        The catalog's rows.
    given
        The fraction that the recipe names: it holds at any number of experiments.
    usual
        The source's own, if the recipe names none: unless it is 0, it holds from 10 tried on.
    """

    def __init__(self, rows: Mapping[str, CatalogRow], given: float | None, usual: float) -> None:
        self._rows = rows
        self._most = usual if given is None else given
        self._is_given = given is not None
        self._n_tried = self._n_failed = self._n_cells = self._n_lost = 0
        self._last: ExperimentRecord | None = None

    def check(self, records: Sequence[ExperimentRecord], *, is_end: bool) -> None:
        """Raise DownloadError if too many experiments or cells are lost.

        Parameters
        ----------
        records
            Those of the last call and what has come since, which alone is looked at: a run checks
            after each of many thousand experiments.
        is_end
            Whether no more will come.
        """
        for record in records[self._n_tried :]:
            n_cells = self._rows[record.experiment_id].n_cells
            self._n_tried += 1
            self._n_cells += n_cells
            if record.failed:
                self._n_failed += 1
                self._n_lost += n_cells
                self._last = record
        last, most = self._last, self._most
        is_early = self._n_tried < _MIN_TRIED and not (is_end and self._is_given)
        if last is None or (most and is_early):
            return
        is_too_much = self._n_lost > most * max(self._n_cells, 1)
        if self._n_failed > most * self._n_tried or is_too_much:
            raise DownloadError(
                f"{self._n_failed} of {self._n_tried} experiments failed, with {self._n_lost:,} "
                f"of {self._n_cells:,} cells, more than max_failed_fraction={most}; the last: "
                f"{last.experiment_id}: {last.reason}. Mend or remove the files and run again, "
                "with retry_failed where the cause lay elsewhere; or raise max_failed_fraction"
            )


def describe_losses(experiments: Sequence[Mapping[str, Any]]) -> str:
    """What became of the experiments tried and of their cells, as lines of text.

    Parameters
    ----------
    experiments
        The content of `experiments.json`.
    """

    def total(name: str) -> int:
        return sum(entry.get(name, 0) for entry in experiments)

    def widest(name: str) -> str:
        found = [(entry.get(name, 0), entry["experiment_id"]) for entry in experiments]
        n, experiment_id = max(found, default=(0, ""))
        return f"{n:,} at most, in {experiment_id}" if n else "0"

    left_out = [entry for entry in experiments if entry["status"] != "drawn"]
    in_files, passing, archived = map(total, ("n_cells_in_file", "n_cells_passing", "n_cells"))
    filtered = total("n_filtered")
    lines = [
        ("experiments tried", f"{len(experiments):,}"),
        ("left out", f"{len(left_out):,}"),
        *(("", f"{e['experiment_id']}: {e['reason']}") for e in left_out[:_MOST_NAMED]),
        *([("", f"… and {len(left_out) - _MOST_NAMED:,} more")] if left_out[_MOST_NAMED:] else []),
        ("cells in files", f"{in_files:,}"),
        ("not looked at", f"{filtered:,}, by cell_filters"),
        ("failing QC", f"{in_files - filtered - passing:,}"),
        ("over the cap", f"{passing - archived:,}"),
        ("not drawn", f"{archived - total('n_cells_drawn'):,}"),
        ("drawn", f"{total('n_cells_drawn'):,}"),
        ("counts saturated", f"{total('n_saturated'):,}, stored as 32,767"),
        ("counts rounded", f"{total('n_rounded'):,}"),
        ("genes merged", widest("n_genes_duplicated")),
        ("genes unknown", widest("n_genes_unknown")),
        ("genes missing", widest("n_genes_missing")),
    ]
    return "\n".join(f"{name:18} {text}".rstrip() for name, text in lines)


def have_failed(experiments: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an experiment was left out because it could not be read."""
    return any(entry["status"] == "failed" for entry in experiments)


def explain_shortage(
    records: Sequence[ExperimentRecord],
    cell_count: int | None,
    quality: QualityFilter,
    max_cells_per_experiment: int | None,
) -> str:
    """Why the experiments tried have too few cells."""
    failed = [record for record in records if record.failed]
    reports = [record.report for record in records if record.report is not None]
    n_in_files = sum(report.n_cells_in_file for report in reports)
    n_filtered = sum(report.n_filtered for report in reports)
    n_cells = sum(report.n_cells for report in reports)
    taken = f", {n_filtered} of them taken away by cell_filters," if n_filtered else ""
    reason = f"; {len(failed)} failed, the first: {failed[0].reason}" if failed else ""
    return (
        f"cell_count={cell_count}, but of {n_in_files} cells in {len(records)} experiments{taken} "
        f"only {n_cells} pass QC ({quality}) and the cap "
        f"(max_cells_per_experiment={max_cells_per_experiment}){reason}: lower cell_count, or "
        "loosen filters or QC"
    )
