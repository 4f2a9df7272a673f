from pathlib import Path

import h5py
import numpy as np
import pytest

from scdiff_data import ManifestError
from scdiff_data.base.files import write_aside, write_json
from scdiff_data.base.hashing import digest, hash_file
from scdiff_data.base.hdf5_map import map_dataset


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


def test_digests_depend_on_content_not_on_key_order(tmp_path: Path) -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": 2})
    (tmp_path / "x").write_bytes(b"abc")
    assert hash_file(tmp_path / "x") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_mapped_dataset_outlives_its_file_and_is_read_only(tmp_path: Path) -> None:
    values = np.arange(1000, dtype=np.int16).reshape(50, 20)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["values"], file["none"] = values, np.empty((0, 3))
        file.create_dataset("chunked", data=values, chunks=True)
    with h5py.File(tmp_path / "x.h5") as file:
        mapped, empty = map_dataset(file["values"]), map_dataset(file["none"])
        with pytest.raises(ManifestError, match="chunked is not contiguous"):
            map_dataset(file["chunked"])
    (tmp_path / "x.h5").unlink()
    assert np.array_equal(mapped, values)
    assert empty.shape == (0, 3)
    assert not mapped.flags.writeable
