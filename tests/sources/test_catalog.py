"""Experiments are filtered by their metadata, from a snapshot taken once."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scdiff_data.errors import ManifestError
from scdiff_data.sources.catalog import filter_catalog, normalize_text
from scdiff_data.sources.rows import Rows
from scdiff_data.sources.snapshot import read_snapshot, read_stored, take_snapshot
from scdiff_data.sources.source import Bucket

CATALOG = pa.table(
    {
        "experiment_id": ["a", "b", "c", "d", "e", "f"],
        "n_cells": [10, 20, 30, 40, 50, 60],
        "tissue": [" Lung", "lung", "not specified", "", None, "Blood"],
    }
)


@dataclass(frozen=True)
class Given:
    """A source whose catalog a test gives."""

    ids: tuple[str | None, ...]
    release: str = "1"
    paths: tuple[str | None, ...] | None = None
    others: tuple[tuple[str, pa.Array | None], ...] = ()

    def settings(self) -> dict[str, Any]:
        return {"source": "given", "release": self.release}

    def open(self, workdir: Path) -> Bucket:
        return Bucket(str(workdir))

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        n = len(self.ids)
        paths = [f"{i}.h5ad" for i in range(n)] if self.paths is None else self.paths
        columns = {
            "experiment_id": pa.array(self.ids, pa.string()),
            "path": pa.array(paths, pa.string()),
            "n_cells": pa.array([10] * n, pa.int64()),
            "size": pa.nulls(n),
            "checksum": pa.nulls(n),
        }
        kept = columns | dict(self.others)
        return pa.table({name: values for name, values in kept.items() if values is not None})


def load(path: Path, source: Given, *, refresh: bool = False) -> list[str]:
    table = None if refresh else read_snapshot(path, source)
    if table is None:
        table = take_snapshot(path, source, Bucket("."))
        assert read_snapshot(path, source) == table
    return table["experiment_id"].to_pylist()


def kept(**conditions: Any) -> str:
    return "".join(filter_catalog(CATALOG, conditions, {}, Path())["experiment_id"].to_pylist())


def test_dirty_text_is_normalised() -> None:
    assert normalize_text(CATALOG["tissue"]).to_pylist() == [
        *("lung", "lung", None, None, None, "blood"),
    ]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        pytest.param({"tissue": "LUNG"}, "ab", id="a-value-without-case"),
        pytest.param({"tissue": ["lung", "blood"]}, "abf", id="a-list"),
        pytest.param({"tissue": [None]}, "cde", id="missing-values"),
        pytest.param({"n_cells": {"min": 20, "max": 40}}, "bcd", id="a-range-with-both-ends"),
        pytest.param({"n_cells": [10, 60]}, "af", id="numbers"),
        pytest.param({"tissue": "lung", "n_cells": {"min": 15}}, "b", id="all-conditions"),
    ],
)
def test_filters_keep(conditions: dict[str, Any], expected: str) -> None:
    assert kept(**conditions) == expected


def test_exclusions_come_on_top_of_filters() -> None:
    table = filter_catalog(CATALOG, {"tissue": ["lung", "blood"]}, {"experiment_id": ["a"]}, Path())
    assert table["experiment_id"].to_pylist() == ["b", "f"]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            {"tisue": "lung"},
            r"filters names no column .*: 'tisue'; it has .*'tissue'.*cell_filters",
        ),
        ({"tissue": {"min": 1}}, "a range is .* on a column of numbers; this one is string"),
        ({"n_cells": {"mni": 1}}, "a range is"),
        ({"tissue": "brain"}, "none of the catalog's 6 experiments passes"),
    ],
)
def test_a_wrong_filter_is_a_clear_error(conditions: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kept(**conditions)


def test_ids_that_could_name_a_path_are_left_out_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = ("SRX1", "../x", "a/b", "", None, "..", ".hidden", "SRX1", "C:\\x", "x" * 300, "ERX-2.b")
    assert load(tmp_path / "c.parquet", Given(ids)) == ["SRX1", "ERX-2.b"]
    assert "left out 9 experiments" in caplog.text
    assert "'../x'" in caplog.text


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"path": None, "size": None}, "that has not path, size once, but experiment_id, n_cells"),
        ({"n_cells": pa.array([1.0, 2.5])}, "whose n_cells is no int64"),
        ({"n_cells": pa.array([1, 2**63], pa.uint64())}, "whose n_cells is no int64"),
        ({"size": pa.array(["1 MB", "2 MB"])}, "whose size is no int64: .* MB"),
    ],
)
def test_a_source_whose_catalog_says_not_what_it_must_is_told(
    tmp_path: Path, others: dict[str, pa.Array | None], message: str
) -> None:
    source = Given(("E0", "E1"), others=tuple(others.items()))
    with pytest.raises(ValueError, match=f"Given.read_catalog gave a table .*{message}"):
        take_snapshot(tmp_path / "c.parquet", source, Bucket("."))
    assert not (tmp_path / "c.parquet").exists()


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float64(), pa.decimal128(21, 2)])
def test_whole_numbers_of_cells_may_have_any_type_and_rows_without_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: pa.DataType
) -> None:
    numbers = pa.array([7, None, 9], pa.int64()).cast(kind)
    source = Given(("E0", "E1", "E2"), others=(("n_cells", numbers),))
    assert load(tmp_path / "c.parquet", source) == ["E0", "E2"]
    assert read_snapshot(tmp_path / "c.parquet", source)["n_cells"].to_pylist() == [7, 9]
    assert "whose number of cells is missing, such as 'E1'" in caplog.text


def test_a_catalog_that_is_no_table_is_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Listing(Given):
        def read_catalog(self, bucket: Bucket) -> Any:
            return super().read_catalog(bucket).to_pylist()

    with pytest.raises(ValueError, match=r"Listing\.read_catalog gave a list: give a pyarrow"):
        take_snapshot(tmp_path / "c.parquet", Listing(("E0",)), Bucket("."))


OUTSIDE = ("../b.h5ad", "a/../../b.h5ad", "/etc/b.h5ad", "", None, "a\0.h5ad", "..")


def test_paths_that_lead_out_of_the_source_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = ("a..b/c.h5ad", *OUTSIDE)
    ids = tuple(f"E{i}" for i in range(len(paths)))
    assert load(tmp_path / "c.parquet", Given(ids, paths=paths)) == ["E0"]
    assert f"left out {len(OUTSIDE)} experiments" in caplog.text


def change(path: Path, column: str, values: list[Any]) -> None:
    table = pq.read_table(path)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values)), path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("experiment_id", name) for name in ("../../evil", "/evil", "", None, ".evil", "E0")),
        *(("path", path) for path in OUTSIDE),
        *(("n_cells", n) for n in (None, -1)),
    ],
)
def test_a_snapshot_that_was_changed_is_refused_whenever_it_is_read(
    tmp_path: Path, column: str, value: str | int | None
) -> None:
    path, source = tmp_path / "c.parquet", Given(("E0", "E1"), paths=("0.h5ad", "1.h5ad"))
    load(path, source)
    change(path, column, [{"experiment_id": "E0", "path": "0.h5ad", "n_cells": 10}[column], value])
    for read in (lambda: read_snapshot(path, source), lambda: read_stored(path)):
        with pytest.raises(
            ManifestError, match=r"c\.parquet is damaged.*delete it.*refresh_catalog"
        ):
            read()
    assert read_snapshot(path, Given((), release="2")) is None  # of another source: taken anew
    assert load(path, source, refresh=True) == ["E0", "E1"]


def test_a_snapshot_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path, source = tmp_path / "c.parquet", Given(("E0",))
    load(path, source)
    content = path.read_bytes()
    for damaged in (content[:40], b"", content[:-9] + b"\0" * 9):
        path.write_bytes(damaged)
        with pytest.raises(ManifestError, match=r"c\.parquet is damaged.*delete it"):
            read_snapshot(path, source)


def test_the_snapshot_is_taken_once_and_renewed_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "metadata" / "catalog.parquet"
    assert load(path, Given(("a",))) == ["a"]
    assert load(path, Given(("a", "b"))) == ["a"]
    assert load(path, Given(("a", "b")), refresh=True) == ["a", "b"]
    assert load(path, Given(("c",), release="2")) == ["c"]


def test_a_row_has_the_columns_of_its_own_and_goes_to_another_process_alone() -> None:
    own = {"path": list("uvwxyz"), "size": [1] * 6, "checksum": [None] * 6}
    catalog = CATALOG
    for name, values in own.items():
        catalog = catalog.append_column(name, pa.array(values))
    catalog = pa.concat_tables([catalog.slice(0, 2), catalog.slice(2)])  # in pieces, as filters do
    rows = Rows(catalog)
    assert list(rows) == list("abcdef")
    assert [dict(row.columns) for row in rows.values()] == catalog.to_pylist()
    assert rows["c"].columns.get("unit") is None
    large = Rows(pa.concat_tables([catalog] * 1_000))
    sent = pickle.dumps(large["f"])
    assert pickle.loads(sent) == large["f"]
    assert len(sent) < 1_000
