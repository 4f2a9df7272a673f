"""Dense and compact shards hold the same counts, and which format a data set gets."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scdiff_data import ManifestError, choose_genes_again, convert_shards, prepare
from scdiff_data.shards import contents, convert
from scdiff_data.shards.contents import check_shards
from scdiff_data.shards.formats import choose_format, count_bytes
from scdiff_data.shards.rows import ShardRows
from scdiff_data.shuffle.packing import PackedRows, most_row_bytes, pack_rows
from scdiff_data.store.manifest import Manifest
from support.cases import digest_tree, pbmc_recipe
from support.reading import read_shards

counts = hnp.arrays(
    np.int16,
    st.tuples(st.integers(1, 6), st.integers(1, 700)),
    elements=st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 255, 256, 257, 511, 512, 32_767]),
    fill=st.just(0),
)


def open_shards(folder: Path) -> ShardRows:
    return ShardRows(Manifest.read(folder))


@settings(max_examples=200)
@given(dense=counts)
def test_packed_rows_unpack_to_the_same_counts(dense: Any) -> None:
    n, n_genes = dense.shape
    room, ends = np.empty(n * most_row_bytes(n_genes), np.uint8), np.empty(n, np.int64)
    packed = room[: pack_rows(dense, room, ends)]
    starts = np.concatenate([[0], ends])
    order = np.arange(n)[::-1]
    rows = PackedRows(packed, starts[order], np.diff(starts)[order], np.zeros(n, np.int64))
    assert np.array_equal(rows.unpack(n_genes), dense[order])
    assert np.array_equal(rows.unpack(max(1, n_genes // 2)), dense[order, : max(1, n_genes // 2)])


def test_compact_shards_hold_the_cells_of_dense_ones(pbmc_dir: Path, tmp_path: Path) -> None:
    prepare(pbmc_recipe(shard_format="compact"), tmp_path)
    dense, compact = read_shards(pbmc_dir), read_shards(tmp_path)
    assert np.array_equal(dense.counts, compact.counts)
    assert dense[1:] == compact[1:]


@settings(max_examples=30)
@given(rows=st.lists(st.integers(-700, 699), max_size=50), width=st.integers(1, 64))
def test_both_formats_gather_the_same(
    pbmc_dir: Path, compact_dir: Path, rows: list[int], width: int
) -> None:
    names = ("expression", "total_counts", "cell_type")
    table = np.minimum(np.arange(32_768) * 3, 250).astype(np.uint8)
    dense, compact = open_shards(pbmc_dir), open_shards(compact_dir)
    for options in ({}, {"width": width}, {"table": table}, {"width": width, "table": table}):
        found = [s.gather(names, np.array(rows, np.int64), **options) for s in (dense, compact)]
        assert all(map(np.array_equal, *found))
        if "table" in options:
            (plain, *_) = dense.gather(names, np.array(rows, np.int64), width=options.get("width"))
            assert np.array_equal(found[0][0], table[plain])


@pytest.mark.parametrize("rows", [[700], [-701]])
def test_a_row_that_compact_shards_lack_is_an_index_error(
    compact_dir: Path, rows: list[int]
) -> None:
    with pytest.raises(IndexError, match=r"rows are -700 … 699"):
        open_shards(compact_dir).gather(("expression",), np.array(rows))


def test_compact_shards_are_checked(compact_dir: Path) -> None:
    check_shards(Manifest.read(compact_dir), full=True)


def test_a_packed_row_outside_its_shard_is_damage(data_dir: Path) -> None:
    convert_shards(data_dir, "compact")
    path = data_dir / "processed" / "batch_0001.h5"
    with h5py.File(path, "r+") as file:
        file["starts"][7] = 2**31
    with pytest.raises(ManifestError, match=r"batch_0001.h5 is damaged \(a row lies outside"):
        open_shards(data_dir).gather(("expression",), np.array([5, 306, 650]))
    with pytest.raises(ManifestError, match=r"batch_0001.h5 has another checksum"):
        check_shards(Manifest.read(data_dir), full=True)


def test_packed_bytes_that_were_cut_short_are_found(data_dir: Path) -> None:
    convert_shards(data_dir, "compact")
    with h5py.File(data_dir / "processed" / "batch_0001.h5", "r+") as file:
        file["starts"][-1] += 2
    with pytest.raises(ManifestError, match=r"batch_0001.h5 is of another run"):
        check_shards(Manifest.read(data_dir), full=False)


def test_converted_there_and_back_the_counts_are_the_same(data_dir: Path) -> None:
    before = read_shards(data_dir)
    assert convert_shards(data_dir, "compact").shard_format == "compact"
    there = read_shards(data_dir)
    assert convert_shards(data_dir, "dense").shard_format == "dense"
    back = read_shards(data_dir)
    for found in (there, back):
        assert np.array_equal(found.counts, before.counts)
        assert found[1:] == before[1:]
    check_shards(Manifest.read(data_dir), full=True)


def test_what_is_converted_already_stays(data_dir: Path) -> None:
    before = digest_tree(data_dir)
    convert_shards(data_dir, "dense")
    assert digest_tree(data_dir) == before


def test_a_recipe_takes_a_converted_directory_unless_it_names_the_other_format(
    data_dir: Path,
) -> None:
    convert_shards(data_dir, "compact")
    before = digest_tree(data_dir)
    prepare(pbmc_recipe(), data_dir)
    assert digest_tree(data_dir) == before
    assert prepare(pbmc_recipe(shard_format="dense"), data_dir).shard_format == "dense"


def test_a_directory_of_an_earlier_version_is_dense(data_dir: Path) -> None:
    manifest = json.loads((data_dir / "config.json").read_text())
    del manifest["shard_format"], manifest["recipe"]["shard_format"], manifest["checksum"]
    del manifest["has_checksum"]
    (data_dir / "config.json").write_text(json.dumps(manifest))
    assert Manifest.read(data_dir).shard_format == "dense"
    before = digest_tree(data_dir)
    prepare(pbmc_recipe(), data_dir)
    assert digest_tree(data_dir) == before


def test_an_unknown_format_is_refused_before_any_work(data_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"dense, compact, auto.*'csr'"):
        pbmc_recipe(shard_format="csr")
    with pytest.raises(ValueError, match=r"dense or compact, got 'auto'"):
        convert_shards(data_dir, "auto")


@pytest.mark.parametrize(
    ("n_cells", "fraction", "expected"),
    [
        pytest.param(2_147_483, 0.17, "dense", id="just-below-8-GiB"),
        pytest.param(2_147_484, 0.17, "compact", id="8-GiB"),
        pytest.param(10_000_000, 0.2, "compact", id="a-fifth"),
        pytest.param(10_000_000, 0.2001, "dense", id="more-than-a-fifth"),
    ],
)
def test_auto_is_dense_for_small_or_dense_data(
    n_cells: int, fraction: float, expected: str
) -> None:
    n_values = int(n_cells * 2_000 * fraction)
    assert choose_format("auto", n_cells=n_cells, n_genes=2_000, n_values=n_values) == expected


def test_the_size_of_compact_counts_is_known_within_a_tenth(compact_dir: Path) -> None:
    found = read_shards(compact_dir).counts
    n_bytes = 0
    for path in Manifest.read(compact_dir).shards:
        with h5py.File(path) as file:
            n_bytes += file["packed"].nbytes + file["starts"].nbytes
    n_cells, n_genes = found.shape
    expected = count_bytes(
        "compact", n_cells=n_cells, n_genes=n_genes, n_values=int((found > 0).sum())
    )
    assert abs(n_bytes - expected) < 0.1 * n_bytes


def test_a_conversion_that_was_cut_off_goes_on(data_dir: Path, compact_dir: Path) -> None:
    n_written, write_one = 0, convert.write_packed

    def fail_at_the_second(*arguments: Any) -> None:
        nonlocal n_written
        n_written += 1
        if n_written == 2:
            raise KeyboardInterrupt
        write_one(*arguments)

    with (
        patch.object(convert, "write_packed", fail_at_the_second),
        pytest.raises(KeyboardInterrupt),
    ):
        convert_shards(data_dir, "compact", n_threads=1)
    assert not (data_dir / "config.json").exists()
    convert_shards(data_dir, "compact")
    assert digest_tree(data_dir) == digest_tree(compact_dir)


def test_shards_of_a_choice_that_was_cut_off_are_not_converted(data_dir: Path) -> None:
    with (
        patch.object(contents.ShardWriter, "write", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        choose_genes_again(data_dir, replace=True, n_hvgs=10)
    with pytest.raises(ManifestError, match=r"is missing, damaged or of another run.*hvg"):
        convert_shards(data_dir, "compact")
    choose_genes_again(data_dir, replace=True, n_hvgs=10)
    assert convert_shards(data_dir, "compact").genes.n_chosen == 10


def test_genes_chosen_again_keep_the_format_that_was_converted_to(data_dir: Path) -> None:
    convert_shards(data_dir, "compact")
    assert choose_genes_again(data_dir, replace=True, n_hvgs=10).shard_format == "compact"
