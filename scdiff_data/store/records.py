"""What became of every experiment tried: one record each, `cells/{experiment_id}.json`.

A record says what was archived under which settings, or why the experiment failed for good. It
holds as long as the settings that an archive depends on do.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scdiff_data.archive import ArchiveReport
from scdiff_data.base import FileEntry, explain_damage, find_change, read_sealed, write_sealed
from scdiff_data.errors import ManifestError
from scdiff_data.reading import GeneAxis
from scdiff_data.sources import CatalogRow
from scdiff_data.store.fields import read_fields, read_value
from scdiff_data.store.layout import DataDirectory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExperimentRecord:
    """What became of an experiment: it failed for a reason, or its report says what was archived.

    Parameters
    ----------
    experiment_id
        The experiment.
    key
        Fingerprint of what its archive depends on, beside the gene axis.
    reason
        Why it failed for good; None if it did not.
    report
        What became of its cells; None if it failed.
    axis, file
        Digest of the gene axis that the archive is over, and the archive; None if no cell is in it.
    """

    experiment_id: str
    key: str
    reason: str | None = None
    report: ArchiveReport | None = None
    axis: str | None = None
    file: FileEntry | None = None

    @property
    def failed(self) -> bool:
        """Whether it failed for good."""
        return self.report is None

    @property
    def n_cells(self) -> int:
        """Cells archived."""
        return 0 if self.report is None else self.report.n_cells

    @classmethod
    def read(cls, path: Path) -> "ExperimentRecord":
        """Read what `write` wrote.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ManifestError
            If it is damaged.
        """
        with explain_damage(path):
            return cls._parse(path, read_sealed(path))

    @classmethod
    def _parse(cls, path: Path, content: Mapping[str, Any]) -> "ExperimentRecord":
        def of(name: str, kind: Any) -> Any:
            return read_value(kind, content[name], name)

        own = of("experiment_id", str), of("key", str)
        if own[0] != path.stem:
            raise ValueError(f"experiment_id is {own[0]}")
        if (status := of("status", str)) not in ("failed", "archived"):
            raise ValueError(f"status is {status!r}, not failed or archived")
        if status == "failed":
            return cls(*own, reason=of("reason", str))
        report = ArchiveReport(**read_fields(ArchiveReport, content))
        if not report.n_cells <= report.n_cells_passing <= report.n_cells_in_file:
            raise ValueError("n_cells, n_cells_passing and n_cells_in_file do not ascend")
        if not report.n_cells:
            return cls(*own, report=report)
        file: FileEntry = of("file", FileEntry)
        if file.path != f"{path.parent.name}/{path.stem}.h5ad":
            raise ValueError(f"file.path is {file.path}")
        return cls(*own, report=report, axis=of("axis", str), file=file)

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        content: dict[str, Any] = {"experiment_id": self.experiment_id, "key": self.key}
        if self.report is None:
            content |= {"status": "failed", "reason": self.reason}
        else:
            content |= {"status": "archived", **asdict(self.report)}
        if self.file is not None:
            content |= {"axis": self.axis, "file": asdict(self.file)}
        write_sealed(path, content)


class Records:
    """The records of a data directory.

    Parameters
    ----------
    directory
        The directory.
    key_of
        Of a row of the catalog, the fingerprint of what its archive depends on; records of another
        one do not hold.
    retry_failed
        Whether experiments that failed for good are tried again.
    """

    def __init__(
        self,
        directory: DataDirectory,
        key_of: Callable[[CatalogRow], str],
        *,
        retry_failed: bool = False,
    ) -> None:
        self._directory = directory
        self._key_of = key_of
        self._retry_failed = retry_failed

    def find(
        self, row: CatalogRow, axis: GeneAxis | None, *, is_reference: bool = False
    ) -> ExperimentRecord | None:
        """The record of a row of the catalog, if there is one that still holds.

        Parameters
        ----------
        row
            The experiment's row of the catalog.
        axis
            The reference genes, as far as they are known.
        is_reference
            Whether it is the first experiment with cells, whose own genes are the reference.
        """
        path = self._directory.record(row.experiment_id)
        try:
            record = ExperimentRecord.read(path)
        except FileNotFoundError:
            return None
        except ManifestError as error:
            logger.warning("%s is damaged (%s) and is made again", path, error.__cause__)
            return None
        if record.key != self._key_of(row):
            return None
        if record.failed:
            return None if self._retry_failed else record
        if record.file is None or record.report is None:
            return record
        root = self._directory.path
        is_whole = find_change(record.file, root, by="its record", full=False) is None
        is_on_axis = axis is not None and record.axis == axis.digest
        if is_reference:
            is_on_axis &= record.report.file_genes == record.axis
        return record if is_whole and is_on_axis else None

    def write(
        self,
        row: CatalogRow,
        *,
        reason: str | None = None,
        report: ArchiveReport | None = None,
        axis: str | None = None,
        file: FileEntry | None = None,
    ) -> ExperimentRecord:
        """Leave a record of a row of the catalog; the arguments are those of `ExperimentRecord`."""
        key = self._key_of(row)
        record = ExperimentRecord(row.experiment_id, key, reason, report, axis, file)
        record.write(self._directory.record(row.experiment_id))
        return record


def list_experiments(
    records: Sequence[ExperimentRecord], count_drawn: Callable[[str], int]
) -> list[dict[str, Any]]:
    """The content of `experiments.json`: what became of every experiment tried, in their order."""
    entries = []
    for record in records:
        left_out = None if record.report is None else record.report.left_out
        n_drawn = 0 if record.failed else count_drawn(record.experiment_id)
        if record.failed:
            status, reason = "failed", record.reason
        elif n_drawn:
            status, reason = "drawn", None
        else:
            status, reason = "skipped", left_out or "no cell passes QC"
        report = {} if record.report is None else asdict(record.report)
        entries.append(
            {
                "experiment_id": record.experiment_id,
                "status": status,
                "reason": reason,
                "n_cells_drawn": n_drawn,
                **{name: n for name, n in report.items() if name.startswith("n_")},
            }
        )
    return entries


def read_experiments(path: Path) -> list[Mapping[str, Any]]:
    """Read what `list_experiments` gave.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        If it is damaged.
    """
    with explain_damage(path):
        entries = read_value(tuple[Mapping[str, Any], ...], json.loads(path.read_text("utf-8")), "")
        for place, entry in enumerate(entries):
            for name, value in entry.items():
                is_text = name in ("experiment_id", "status")
                kind = str if is_text else int if name.startswith("n_") else str | None
                read_value(kind, value, f"[{place}].{name}")
            if entry["status"] not in ("drawn", "skipped", "failed"):
                raise ValueError(f"[{place}].status is {entry['status']!r}")
        names = [entry["experiment_id"] for entry in entries]
        if len(set(names)) < len(names):
            raise ValueError("an experiment_id is there twice")
        return list(entries)


def list_exact(experiments: Sequence[Mapping[str, Any]]) -> set[str]:
    """Experiments of whose drawn cells every count is in the archive: none saturated or unknown."""
    return {
        entry["experiment_id"]
        for entry in experiments
        if entry.get("n_saturated") == 0 and entry.get("n_genes_unknown") == 0
    }


def sum_dropped(experiments: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What is missing from the shards or was changed on the way, over all experiments tried."""

    def total(name: str) -> int:
        return sum(entry.get(name, 0) for entry in experiments)

    return {
        "experiments_failed": sum(entry["status"] == "failed" for entry in experiments),
        "experiments_skipped": sum(entry["status"] == "skipped" for entry in experiments),
        "cells_filtered": total("n_filtered"),
        "cells_failing_quality": total("n_cells_in_file")
        - total("n_filtered")
        - total("n_cells_passing"),
        "cells_over_cap": total("n_cells_passing") - total("n_cells"),
        "cells_not_drawn": total("n_cells") - total("n_cells_drawn"),
        "counts_saturated": total("n_saturated"),
    }
