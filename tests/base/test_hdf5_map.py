"""A mapped dataset is what the file held, and hints about its pages do what they say."""

import mmap
from pathlib import Path

import h5py
import numpy as np
import pytest

from scdiff_data import ManifestError
from scdiff_data.base import hdf5_map
from scdiff_data.base.hdf5_map import (
    DiskWatch,
    ask_for,
    ask_for_bytes,
    expect_random,
    find_datasets,
    give_back,
    map_dataset,
    map_file,
)
from support.disk import count_bytes_read, drop_from_cache


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


def test_a_random_read_fetches_its_own_pages_alone(tmp_path: Path) -> None:
    path, n = tmp_path / "file", 16 << 20
    path.write_bytes(np.random.default_rng(0).bytes(n))
    drop_from_cache(path)
    mapped = map_file(path)
    expect_random(mapped)
    with count_bytes_read() as read:
        for page in range(0, n, n // 40):
            mapped[page]
    assert read() <= 41 * 4 * mmap.PAGESIZE


@pytest.mark.parametrize("is_compiled", [False, True])
def test_all_that_is_asked_for_is_fetched_however_much_it_is(
    tmp_path: Path,
    is_compiled: bool,
) -> None:
    path, n = tmp_path / "file", 24 << 20  # more than any system reads ahead
    path.write_bytes(np.random.default_rng(0).bytes(n))
    drop_from_cache(path)
    mapped = map_file(path)
    expect_random(mapped)
    with count_bytes_read() as read:
        if is_compiled:
            ask_for_bytes(mapped.ctypes.data, n)
        else:
            ask_for(mapped.view(np.int16))
    assert read() >= n


def test_hints_change_nothing_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 100)
    mapped = map_file(path)
    for hint in (expect_random, ask_for, give_back):
        for part in (mapped, mapped[5:6_000], mapped[:0]):
            hint(part)
        assert mapped.tobytes() == path.read_bytes()


def test_rows_are_asked_for_while_faults_are_seen_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n_faults = 0
    monkeypatch.setattr(hdf5_map, "count_faults", lambda: n_faults)
    watch, rows = DiskWatch(), np.arange(100)
    for _ in range(50):
        watch.look()
    assert not watch.is_cold
    for _ in range(8):
        n_faults += 100
        watch.look()
    assert watch.is_cold
    chosen = [len(watch.choose(rows)) for _ in range(128)]
    assert sorted(set(chosen)) == [92, 100]  # a probe now and then
    assert chosen.count(92) == 2
    for _ in range(200):
        watch.look()
    assert not watch.is_cold


def test_a_dataset_that_is_not_there_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(10)
        file["empty"] = np.empty(0)
    assert find_datasets(tmp_path / "a.h5", ["x", "empty"], "key")[1][1] == (0, 0)
    with pytest.raises(ManifestError, match=r"a.h5 is damaged"):
        find_datasets(tmp_path / "a.h5", ["y"], "key")
