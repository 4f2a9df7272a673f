"""Rows of a table leave in the order of their places."""

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data.shuffle import tables
from scdiff_data.shuffle.tables import TableSorter


@settings(max_examples=50)
@given(n=st.integers(1, 200), n_each=st.integers(1, 50), part=st.integers(1, 60), data=st.data())
def test_rows_leave_in_order_however_they_came(
    n: int, n_each: int, part: int, data: st.DataObject
) -> None:
    places = np.array(data.draw(st.permutations(range(n))))
    rows = pa.table({"text": [f"row {place}" for place in places], "number": places})
    with tempfile.TemporaryDirectory() as folder, patch.object(tables, "_MOST_BUCKETS", 3):
        place = Path(folder) / "ordering"
        place.mkdir()
        (place / "stale").write_text("of a killed run")
        with TableSorter(place, rows.schema, n_rows=n, n_each=n_each) as sorter:
            for start in range(0, n, part):
                sorter.add(rows.slice(start, part), places[start : start + part])
            found = list(sorter.read())
        assert not place.exists()
    assert [first for first, _ in found] == list(range(0, n, n_each))
    assert all(len(part) <= n_each for _, part in found)
    whole = pa.concat_tables([part for _, part in found])
    assert whole["number"].to_pylist() == list(range(n))
    assert whole["text"].to_pylist() == [f"row {place}" for place in range(n)]
