"""What is remembered of the experiments tried, and for how long."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scdiff_data import ManifestError
from scdiff_data.archive.convert import ArchiveReport
from scdiff_data.base import read_sealed, write_json, write_sealed
from scdiff_data.base.files import FileEntry
from scdiff_data.reading.gene_axis import GeneAxis
from scdiff_data.sources.rows import CatalogRow
from scdiff_data.store.layout import DataDirectory
from scdiff_data.store.records import (
    ExperimentRecord,
    Records,
    list_experiments,
    read_experiments,
    sum_dropped,
)
from support.cases import pbmc_recipe

AXIS = GeneAxis(("g1", "g2"), ("g1", "g2"))
ROW = CatalogRow("A", "A.h5ad", n_cells=6, size=3, checksum=None, columns={})
REPORT = ArchiveReport(
    n_cells_in_file=6,
    n_cells_passing=5,
    n_cells=5,
    n_saturated=0,
    n_genes_unknown=0,
    n_genes_missing=0,
    n_genes_duplicated=0,
    file_genes=AXIS.digest,
)


def records_of(folder: Path, *, retry_failed: bool = False, **changes: Any) -> Records:
    key_of = pbmc_recipe(**changes).archive_key
    return Records(DataDirectory(folder), key_of, retry_failed=retry_failed)


def archived(data_dir: Path, **changes: Any) -> dict[str, Any]:
    """What a record says of an archive that lies there."""
    (data_dir / "cells").mkdir(exist_ok=True)
    (data_dir / "cells" / "A.h5ad").write_bytes(b"abc")
    file = FileEntry("cells/A.h5ad", size=3, sha256="0")
    return {"report": replace(REPORT, **changes), "axis": AXIS.digest, "file": file}


def test_a_record_holds_while_its_settings_and_its_archive_do(tmp_path: Path) -> None:
    records = records_of(tmp_path)
    assert records.find(ROW, AXIS) is None
    written = records.write(ROW, **archived(tmp_path))
    assert records.find(ROW, AXIS) == written
    assert records_of(tmp_path, n_hvgs=9, cell_count=7).find(ROW, AXIS) == written
    for changes in ({"min_genes": 3}, {"max_cells_per_experiment": 4}):
        assert records_of(tmp_path, **changes).find(ROW, AXIS) is None
    assert records.find(replace(ROW, size=4), AXIS) is None  # replaced upstream
    assert records.find(ROW, GeneAxis(("g2", "g1"), ("g2", "g1"))) is None
    (tmp_path / "cells" / "A.h5ad").write_bytes(b"ab")
    assert records.find(ROW, AXIS) is None


def test_the_first_experiment_must_have_given_the_reference_genes_itself(tmp_path: Path) -> None:
    records = records_of(tmp_path)
    records.write(ROW, **archived(tmp_path, file_genes="others"))
    assert records.find(ROW, AXIS) is not None
    assert records.find(ROW, AXIS, is_reference=True) is None


def test_a_failure_holds_until_it_is_to_be_tried_again(tmp_path: Path) -> None:
    written = records_of(tmp_path).write(ROW, reason="gone")
    assert records_of(tmp_path).find(ROW, None) == written
    assert records_of(tmp_path, retry_failed=True).find(ROW, None) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key"'])
def test_a_damaged_record_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "A.json").write_text(text)
    assert records_of(tmp_path).find(ROW, AXIS) is None
    assert "A.json is damaged" in caplog.text


def test_every_experiment_and_every_cell_is_accounted_for() -> None:
    some = replace(REPORT, n_cells_in_file=10, n_cells_passing=8, n_cells=7, n_saturated=2)
    none = replace(REPORT, n_cells_in_file=4, n_cells_passing=0, n_cells=0)
    experiments = list_experiments(
        [
            ExperimentRecord("A", "key", report=some),
            ExperimentRecord("B", "key", report=none),
            ExperimentRecord("C", "key", reason="gone"),
        ],
        {"A": 6, "B": 0}.__getitem__,
    )
    assert [(e["status"], e["n_cells_drawn"]) for e in experiments] == [
        ("drawn", 6),
        ("skipped", 0),
        ("failed", 0),
    ]
    assert experiments[2]["reason"] == "gone"
    assert sum_dropped(experiments) == {
        "experiments_failed": 1,
        "experiments_skipped": 1,
        "cells_filtered": 0,
        "cells_failing_quality": 6,
        "cells_over_cap": 1,
        "cells_not_drawn": 1,
        "counts_saturated": 2,
    }


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("n_cells", -1, "n_cells is -1, not a number from 0"),
        ("n_cells", 9, "n_cells, n_cells_passing and n_cells_in_file do not ascend"),
        ("file_genes", 3, "file_genes is 3, not a text"),
        ("experiment_id", "../A", r"experiment_id is \.\./A"),
        ("file", {"path": "cells/B.h5ad", "size": 3, "sha256": "0"}, "file.path is cells/B.h5ad"),
        ("file", None, "file is None, not an object"),
        ("status", 0, "status is 0, not a text"),
        ("status", "", "status is '', not failed or archived"),
    ],
)
def test_a_record_of_what_cannot_be_is_refused_though_its_checksum_is_right(
    tmp_path: Path, name: str, value: Any, named: str
) -> None:
    records_of(tmp_path).write(ROW, **archived(tmp_path))
    path = tmp_path / "cells" / "A.json"
    write_sealed(path, read_sealed(path) | {name: value})
    with pytest.raises(ManifestError, match=rf"A\.json is damaged \({named}"):
        ExperimentRecord.read(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n_saturated": "0"}, r"\[1\].n_saturated is '0', not a whole number"),
        ({"experiment_id": None}, r"\[1\].experiment_id is None, not a text"),
        ({"experiment_id": "A"}, "an experiment_id is there twice"),
    ],
)
def test_experiments_that_cannot_be_are_refused(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    records = [ExperimentRecord(name, "key", report=REPORT) for name in "AB"]
    first, second = list_experiments(records, lambda _: 5)
    write_json(tmp_path / "experiments.json", [first, second])
    assert read_experiments(tmp_path / "experiments.json") == [first, second]
    write_json(tmp_path / "experiments.json", [first, second | change])
    with pytest.raises(ManifestError, match=rf"experiments\.json is damaged \({named}"):
        read_experiments(tmp_path / "experiments.json")
