"""A run stops when too much is lost, and says what was."""

import pytest

from scdiff_data import DownloadError
from scdiff_data.archive.convert import ArchiveReport
from scdiff_data.sources.rows import CatalogRow
from scdiff_data.store.losses import LossLimit, describe_losses
from scdiff_data.store.records import ExperimentRecord

REPORT = ArchiveReport(100, 80, 70, 3, 1, 2, 0, "axis")


def make_records(n_good: int, n_bad: int) -> list[ExperimentRecord]:
    good = [ExperimentRecord(f"E{i}", "", report=REPORT) for i in range(n_good)]
    return good + [ExperimentRecord(f"B{i}", "", reason="torn") for i in range(n_bad)]


def make_rows(records: list[ExperimentRecord], *, bad_cells: int = 100) -> dict[str, CatalogRow]:
    return {
        r.experiment_id: CatalogRow(
            r.experiment_id, "", bad_cells if r.failed else 100, None, None, columns={}
        )
        for r in records
    }


@pytest.mark.parametrize(
    ("n_good", "n_bad", "given", "usual", "is_end", "stops"),
    [
        (5, 1, None, 0.0, False, True),  # own files: at the first
        (5, 0, None, 0.0, True, False),
        (5, 1, None, 0.1, True, False),  # scBaseCount: from 10 on
        (8, 2, None, 0.1, False, True),
        (9, 1, None, 0.1, True, False),
        (3, 1, 0.2, 0.1, True, True),  # what is given holds at any number, at the end
        (3, 1, 0.2, 0.1, False, False),
        (3, 1, 0.25, 0.0, True, False),
    ],
)
def test_too_many_lost_experiments_stop_the_run(
    n_good: int, n_bad: int, given: float | None, usual: float, *, is_end: bool, stops: bool
) -> None:
    records = make_records(n_good, n_bad)
    limit = LossLimit(make_rows(records), given, usual)
    if not stops:
        limit.check(records, is_end=is_end)
        return
    with pytest.raises(DownloadError, match=rf"{n_bad} of {n_good + n_bad} experiments.*: torn"):
        limit.check(records, is_end=is_end)


def test_few_experiments_with_most_of_the_cells_are_too_many() -> None:
    records = make_records(9, 1)
    with pytest.raises(DownloadError, match=r"with 9,000 of 9,900 cells"):
        LossLimit(make_rows(records, bad_cells=9_000), 0.2, 0.1).check(records, is_end=True)


def test_the_table_accounts_for_every_experiment_and_cell() -> None:
    drawn = {"experiment_id": "E", "status": "drawn", "reason": None, "n_cells_drawn": 60}
    drawn |= {"n_cells_in_file": 100, "n_filtered": 5, "n_cells_passing": 80, "n_cells": 70}
    drawn |= {"n_saturated": 3, "n_genes_missing": 12}
    lost = {"experiment_id": "B", "status": "failed", "reason": "torn", "n_cells_drawn": 0}
    text = describe_losses([drawn, *[lost] * 21])
    expected = {
        "experiments tried": "22",
        "left out": "21",
        "cells in files": "100",
        "not looked at": "5, by cell_filters",
        "failing QC": "15",
        "over the cap": "10",
        "not drawn": "10",
        "drawn": "60",
        "counts saturated": "3, stored as 32,767",
        "genes missing": "12 at most, in E",
    }
    for name, value in expected.items():
        assert f"{name:18} {value}" in text.splitlines(), name
    assert text.count("B: torn") == 20
    assert "… and 1 more" in text


def test_a_run_of_many_experiments_looks_at_each_once() -> None:
    records = make_records(9, 4)
    looked: list[str] = []

    class Rows(dict[str, CatalogRow]):
        def __getitem__(self, name: str) -> CatalogRow:
            looked.append(name)
            return super().__getitem__(name)

    limit = LossLimit(Rows(make_rows(records)), 0.3, 0.1)
    for n in range(len(records)):
        limit.check(records[:n], is_end=False)
    with pytest.raises(DownloadError, match=r"4 of 13 experiments failed, with 400 of 1,300 cells"):
        limit.check(records, is_end=True)
    assert looked == [record.experiment_id for record in records]
