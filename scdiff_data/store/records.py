"""What became of every experiment tried: one record each, `cells/{experiment_id}.json`.

A record says what was archived under which settings, or why the experiment failed for good. It
holds as long as the settings that an archive depends on do.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from scdiff_data.archive import GeneAxis
from scdiff_data.base import write_json
from scdiff_data.store.layout import DataDirectory

logger = logging.getLogger(__name__)


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
        key_of: Callable[[Mapping[str, Any]], str],
        *,
        retry_failed: bool = False,
    ) -> None:
        self._directory, self._key, self._retry_failed = directory, key_of, retry_failed

    def find(
        self, row: Mapping[str, Any], axis: GeneAxis | None, *, is_reference: bool = False
    ) -> dict[str, Any] | None:
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
        try:
            record: dict[str, Any] = json.loads(self._path(row).read_text("utf-8"))
            holds = record["key"] == self._key(row)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            logger.warning("%s is damaged (%s) and is made again", self._path(row), error)
            return None
        if not holds:
            return None
        if record["status"] == "failed":
            return None if self._retry_failed else record
        if record["n_cells"] == 0:
            return record
        archive = self._directory.path / record["file"]["path"]
        whole = archive.exists() and archive.stat().st_size == record["file"]["size"]
        same_axis = axis is not None and record["axis"] == axis.digest
        if is_reference:
            same_axis &= record["file_genes"] == record["axis"]
        return record if whole and same_axis else None

    def write(self, row: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
        """Leave a record; gives it whole."""
        record = {"experiment_id": row["experiment_id"], "key": self._key(row), **content}
        write_json(self._path(row), record)
        return record

    def _path(self, row: Mapping[str, Any]) -> Path:
        return self._directory.record(row["experiment_id"])


def list_experiments(records: Sequence[Mapping[str, Any]], cells: pa.Table) -> list[dict[str, Any]]:
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


def sum_dropped(experiments: Sequence[Mapping[str, Any]]) -> dict[str, int]:
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
