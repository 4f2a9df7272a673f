"""Tables of a catalog that may be larger than memory."""

import errno
import os
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pytest

from scdiff_data import ManifestError
from scdiff_data.base import write_parquet
from scdiff_data.sources import Rows, rows
from scdiff_data.sources.rows import choose_rows, keep_aside, read_aside


def test_a_table_whose_texts_are_no_utf_8_is_damaged(tmp_path: Path) -> None:
    offsets, letters = np.array([0, 2, 4], np.int32), b"ab\xab\xabc"
    texts = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), pa.py_buffer(letters))
    write_parquet(tmp_path / "table.parquet", pa.table({"experiment_id": texts}))
    with pytest.raises(ManifestError, match=r"table.parquet is damaged.*UTF8"):
        read_aside(tmp_path / "table.parquet")


def test_a_files_name_that_is_no_text_is_no_experiment() -> None:
    assert os.fsdecode(b"\xff") not in Rows(pa.table({"experiment_id": ["?", "e1"]}))


def make_batches(n: int) -> list[pa.RecordBatch]:
    """Of 100 kB each, whose words are coded anew in every one."""
    return [
        pa.record_batch(
            {
                "number": np.arange(10_000) + i,
                "word": pa.array([f"{i} {k % 3}" for k in range(10_000)]).dictionary_encode(),
            }
        )
        for i in range(n)
    ]


@pytest.mark.parametrize("n", [0, 2, 60])
def test_a_table_kept_aside_is_the_same_and_a_large_one_takes_no_memory(
    tmp_path: Path, n: int
) -> None:
    (schema,) = {batch.schema for batch in make_batches(1)}
    expected = pa.Table.from_batches(make_batches(n), schema)
    before = pa.total_allocated_bytes()
    table = keep_aside(iter(make_batches(n)), schema, tmp_path)
    assert pa.total_allocated_bytes() - before < 300_000
    assert table.to_pydict() == expected.to_pydict()
    assert not list(tmp_path.iterdir())
    keep = np.arange(len(table)) % 7 == 0
    before = pa.total_allocated_bytes()
    chosen = choose_rows(table, keep, tmp_path)
    assert chosen.to_pydict() == expected.filter(pa.array(keep)).to_pydict()
    write_parquet(tmp_path / "table.parquet", table)
    assert read_aside(tmp_path / "table.parquet").to_pydict() == expected.to_pydict()


def test_a_table_is_kept_aside_elsewhere_if_its_folder_may_only_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, make = make_batches(60), rows.TemporaryFile

    def refuse(**where: Path) -> IO[bytes]:
        if "dir" in where:
            raise OSError(errno.EROFS, "Read-only file system")
        return make()

    monkeypatch.setattr(rows, "TemporaryFile", refuse)
    table = keep_aside(iter(batches), batches[0].schema, tmp_path)
    assert table.equals(pa.Table.from_batches(batches))


def test_a_disk_that_is_full_while_a_table_is_kept_aside_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = make_batches(60)
    full = Path("/dev/full").open("r+b")  # noqa: SIM115 - what is tested closes it
    monkeypatch.setattr(rows, "TemporaryFile", lambda **_: full)
    with pytest.raises(OSError, match="No space left") as caught:
        keep_aside(iter(batches), batches[0].schema, tmp_path)
    assert caught.value.errno == errno.ENOSPC
