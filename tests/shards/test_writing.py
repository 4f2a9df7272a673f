"""Shards on disk: how long, how mixed, and laid out to be mapped."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from scdiff_data.shards.rows import ShardRows
from scdiff_data.store.manifest import Manifest


def open_shards(folder: Path) -> ShardRows:
    return ShardRows(Manifest.read(folder))


def test_shards_hold_shard_size_cells_each_but_the_last(pbmc_dir: Path) -> None:
    lengths = []
    for path in Manifest.read(pbmc_dir).shards:
        with h5py.File(path) as shard:
            lengths.append(len(shard["expression"]))
    assert lengths == [300, 300, 100]


def test_datasets_are_contiguous_so_that_they_can_be_mapped(pbmc_dir: Path) -> None:
    with h5py.File(Manifest.read(pbmc_dir).shards[0]) as shard:
        for name in ("expression", "cell_ids", "total_counts", "labels/cell_type/codes"):
            assert shard[name].id.get_offset() is not None, name


def test_cells_of_all_experiments_are_mixed(pbmc_dir: Path) -> None:
    (first,) = open_shards(pbmc_dir).gather(("experiment_id",), np.arange(100))
    assert len(np.unique(first)) == 7


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_each_split_is_one_run_of_rows(pbmc_dir: Path, split: str) -> None:
    import pyarrow.parquet as pq

    splits = pq.read_table(pbmc_dir / "metadata/cells.parquet")["split"].to_pylist()
    rows = np.flatnonzero(np.array(splits) == split)
    assert np.array_equal(rows, np.arange(rows[0], rows[-1] + 1))
