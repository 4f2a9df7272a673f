"""Files appear whole or not at all."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest

from scdiff_data import ManifestError
from scdiff_data.base.files import (
    create_file,
    explain_damage,
    open_in_place,
    read_parquet,
    read_sealed,
    write_aside,
    write_hdf5,
    write_json,
    write_parquet,
    write_sealed,
)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with pytest.raises(UnicodeEncodeError), write_aside(path) as aside:
        aside.write_text("half" * 10_000 + "\ud800", "utf-8")
    assert not list(path.parent.iterdir())
    with write_aside(path) as aside:
        aside.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == '{\n  "a": 1\n}\n'


def fill(path: Path) -> None:
    """Write what our files are made of: attributes, texts, chunks, a large dataset."""
    with write_hdf5(path, alignment_threshold=1 << 12, alignment_interval=4096) as file:
        file.attrs["key"] = "value"
        texts = np.array(["some", "texts"], dtype=object)
        file.create_dataset("a/texts", data=texts, dtype=h5py.string_dtype())
        file.create_dataset("a/chunks", data=np.arange(5000), chunks=(1000,), compression="gzip")
        large = file.create_dataset("large", (4, 3000), np.int16)
        for row in range(4):
            large[row] = row + 1


@pytest.mark.parametrize("call", ["pwrite", "ftruncate"])
def test_no_error_is_lost_in_writing_hdf5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real, n_calls, failing = getattr(os, call), 0, -1

    def act(*args: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, call, act)
    fill(tmp_path / "whole")
    n_whole = n_calls
    assert n_whole
    for failing in range(1, n_whole + 1):
        n_calls = 0
        with pytest.raises(OSError, match="No space left"):
            fill(tmp_path / f"{failing}")
        assert n_calls == failing  # nothing is written after it
    with h5py.File(tmp_path / "whole") as file:
        assert file["large"][:, 0].tolist() == [1, 2, 3, 4]
        assert file["a/texts"].asstr()[:].tolist() == ["some", "texts"]


def test_an_hdf5_file_is_added_to(tmp_path: Path) -> None:
    fill(tmp_path / "file")
    with write_hdf5(tmp_path / "file") as file:
        file["more"] = [1, 2]
    with h5py.File(tmp_path / "file") as file:
        assert set(file) == {"a", "large", "more"}


@pytest.mark.parametrize("is_there", [True, False])
def test_nothing_is_written_through_a_link(tmp_path: Path, is_there: bool) -> None:
    victim = tmp_path / "victim"
    if is_there:
        victim.write_text("precious")

    def link(name: str) -> Path:
        (tmp_path / name).symlink_to(victim)
        return tmp_path / name

    with create_file(link("new")) as file:
        file.write(b"new")
    assert not (tmp_path / "new").is_symlink()
    for append in (False, True):
        with pytest.raises(OSError, match="symbolic link") as refused:
            open_in_place(link(f"place {append}"), append=append)
        assert refused.value.errno == errno.ELOOP
    with pytest.raises(OSError, match="symbolic link"), write_hdf5(link("h5")):
        pass
    link("file.tmp")
    with write_aside(link("file")) as aside:
        assert not aside.is_symlink()
        aside.write_text("whole")
    assert not (tmp_path / "file").is_symlink()
    assert victim.exists() == is_there
    assert not is_there or victim.read_text() == "precious"


def test_a_file_open_in_place_keeps_what_it_has(tmp_path: Path) -> None:
    for append in (True, True, False):
        with open_in_place(tmp_path / "file", append=append) as file:
            file.write(b"ab")
    assert (tmp_path / "file").read_bytes() == b"abab"


def test_what_is_no_fault_of_a_file_is_not_called_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    for error in (OSError(errno.EMFILE, "too many open files"), FileNotFoundError("gone")):
        with pytest.raises(type(error), match=str(error.args[-1])), explain_damage(path):
            raise error
    for fault in (OSError("truncated"), KeyError("X"), UnicodeDecodeError("utf-8", b"", 0, 1, "")):
        with pytest.raises(ManifestError, match=r"a\.h5 is damaged"), explain_damage(path):
            raise fault


@pytest.mark.parametrize("name", ["checksum", "has_checksum"])
def test_json_that_lost_its_checksum_is_not_taken_for_an_older_one(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "said.json"
    write_sealed(path, {"n_cells": 3})
    assert read_sealed(path) == {"n_cells": 3}
    content = json.loads(path.read_text())
    content[f"{name}x"] = content.pop(name)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="does not match its checksum"):
        read_sealed(path)
    path.write_text(json.dumps({"n_cells": 3}))  # as earlier versions wrote it
    assert read_sealed(path) == {"n_cells": 3}


def test_a_table_whose_texts_are_no_utf_8_is_damaged(tmp_path: Path) -> None:
    offsets, letters = np.array([0, 2, 4], np.int32), b"ab\xab\xabc"
    texts = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), pa.py_buffer(letters))
    write_parquet(tmp_path / "table.parquet", pa.table({"experiment_id": texts}))
    with pytest.raises(ManifestError, match=r"table.parquet is damaged.*UTF8"):
        read_parquet(tmp_path / "table.parquet")
