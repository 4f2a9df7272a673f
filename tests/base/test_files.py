"""Files appear whole or not at all."""

import errno
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from scdiff_data import ManifestError
from scdiff_data.base import write_hdf5
from scdiff_data.base.files import (
    create_file,
    explain_damage,
    open_in_place,
    read_parquet,
    read_sealed,
    write_aside,
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
