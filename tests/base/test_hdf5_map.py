"""A mapped dataset is what the file held, and hints about its pages do what they say."""

import mmap
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from scdiff_data import ManifestError
from scdiff_data.base import hdf5_map
from scdiff_data.base.hdf5_map import (
    DiskWatch,
    ask_for,
    expect_random,
    find_datasets,
    give_back,
    map_dataset,
    map_file,
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


def test_a_random_read_fetches_its_own_pages_alone(tmp_path: Path) -> None:
    if not Path("/proc/self/io").exists() or not hasattr(os, "posix_fadvise"):
        pytest.skip("this system does not say what was read from the disk")
    path, n = tmp_path / "file", 16 << 20
    with path.open("wb") as file:
        file.write(np.random.default_rng(0).bytes(n))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    mapped = map_file(path)
    expect_random(mapped)
    before = read_from_disk()
    for page in range(0, n, n // 40):
        mapped[page]
    n_bytes = read_from_disk() - before
    if n_bytes == 0:
        pytest.skip("this folder is in memory")
    assert n_bytes <= 41 * 4 * mmap.PAGESIZE


def read_from_disk() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


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
