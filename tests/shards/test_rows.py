"""Rows are gathered from shards."""

import pickle
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data.shards import rows as module
from scdiff_data.shards.columns import ShardColumns
from scdiff_data.shards.contents import create_shard
from scdiff_data.shards.formats import set_key
from scdiff_data.shards.loops import FINE, translate_dense
from scdiff_data.shards.rows import ShardRows
from scdiff_data.store.manifest import Manifest
from support.disk import count_bytes_read, drop_from_cache


def open_shards(folder: Path) -> ShardRows:
    return ShardRows(Manifest.read(folder))


@settings(max_examples=30)
@given(rows=st.lists(st.integers(0, 699), min_size=1, max_size=50))
def test_gathered_rows_are_those_that_h5py_reads(pbmc_dir: Path, rows: list[int]) -> None:
    shards = open_shards(pbmc_dir)
    names = {"expression": "expression", "cell_id": "cell_ids", "total_counts": "total_counts"}
    for name, dataset in names.items():
        parts = []
        for path in Manifest.read(pbmc_dir).shards:
            with h5py.File(path) as shard:
                parts.append(shard[dataset][:])
        (found,) = shards.gather((name,), np.array(rows))
        assert np.array_equal(found, np.concatenate(parts)[rows])


@settings(max_examples=60)
@given(
    n_genes=st.integers(1, 200),
    most=st.sampled_from([1, 15, 16, 300, 32_767]),
    dtype=st.sampled_from([np.uint8, np.int16]),
    seed=st.integers(0, 2**32 - 1),
)
def test_dense_rows_become_tokens_whatever_their_counts(
    n_genes: int, most: int, dtype: type, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    counts = np.minimum(rng.geometric(2 / (most + 2), (9, n_genes)) - 1, most).astype(np.int16)
    table = rng.integers(0, 255, 32_768).astype(dtype)
    rows = rng.permutation(9)[:5]
    tokens = np.empty((5, n_genes), dtype)
    addresses = np.array([[counts[:5].ctypes.data, counts[5:].ctypes.data]])
    assert translate_dense(addresses, rows, 0, 9, 5, n_genes, table, tokens) == FINE
    assert np.array_equal(tokens, table[counts[rows]])


def test_only_the_first_genes_are_gathered_when_asked(pbmc_dir: Path) -> None:
    shards = open_shards(pbmc_dir)
    rows = np.array([3, 650])
    (whole,) = shards.gather(("expression",), rows)
    (part,) = shards.gather(("expression",), rows, width=5)
    assert np.array_equal(part, whole[:, :5])


def test_opening_a_shard_fetches_what_is_narrow_and_not_its_counts(tmp_path: Path) -> None:
    path, n, rng = tmp_path / "batch_0000.h5", 20_000, np.random.default_rng(0)
    with create_shard(path) as file:
        set_key(file, "key")
        for name in ("gene_ids", "gene_symbols"):
            file[name] = np.full(256, b"gene")
        file["gene_indices"] = np.arange(256, dtype=np.int32)
        for name in ("cell_ids", "experiment_ids"):
            file[name] = np.full(n, b"id")
        file["expression"] = rng.integers(0, 9, (n, 256), np.int16)
        file["total_counts"] = rng.integers(0, 99, n, np.int32)
        file["labels/cell_type/codes"] = rng.integers(0, 2, n, np.int8)
        file["labels/cell_type/categories"] = [b"B cell", b"T cell"]
    columns = ShardColumns(path, "key")
    drop_from_cache(path)
    with count_bytes_read() as read:
        columns.map(path, n)
    assert 5 * n <= read() < path.stat().st_size / 4


def test_no_rows_are_an_empty_array(pbmc_dir: Path) -> None:
    (nothing,) = open_shards(pbmc_dir).gather(("expression",), np.array([], np.int64))
    assert nothing.shape == (0, 64)


def test_a_pickled_map_is_small_and_gathers_the_same(pbmc_dir: Path) -> None:
    shards = open_shards(pbmc_dir)
    rows = np.arange(700)
    (whole,) = shards.gather(("expression",), rows)
    pickled = pickle.dumps(shards)
    assert len(pickled) < 20_000  # paths and names, no counts
    assert np.array_equal(pickle.loads(pickled).gather(("expression",), rows)[0], whole)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_few_maps_at_a_time_are_enough(pbmc_dir: Path, most: int) -> None:
    whole, few = open_shards(pbmc_dir), open_shards(pbmc_dir)
    rng = np.random.default_rng(0)
    with patch.object(module, "_MOST_MAPS", most):
        for number in range(30):
            rows = rng.integers(0, 700, rng.integers(1, 20))
            few.watch.is_cold = number % 2 == 0
            found, expected = (s.gather(("expression",), rows)[0] for s in (few, whole))
            assert np.array_equal(found, expected)
            few.ask_for_runs(np.array([[0, 700]]), within=range(700))
