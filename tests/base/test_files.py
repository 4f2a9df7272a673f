"""Files appear whole or not at all."""

import errno
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from scdiff_data.base.files import write_aside, write_hdf5, write_json


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
