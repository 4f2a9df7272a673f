"""One pass over the archives gives the same shards in any memory, by any threads, after kills."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import pytest

from scdiff_data import prepare
from scdiff_data.shards import contents, writing
from scdiff_data.shards.contents import ShardGenes
from scdiff_data.shards.writing import write_shards
from scdiff_data.store.layout import DataDirectory
from scdiff_data.store.manifest import Manifest
from support.cases import digest_tree, pbmc_recipe
from support.reading import read_drawn


def write(data_dir: Path, target: Path, **changes: Any) -> dict[str, str]:
    """The shards of a prepared directory, written anew elsewhere; digests of all that is there."""
    manifest = Manifest.read(data_dir)
    info = json.loads(manifest.directory.hvg_info.read_text())
    cells = read_drawn(data_dir)
    genes = ShardGenes(
        indices=np.array(info["hvg_indices"]),
        ids=info["hvg_names"],
        symbols=info["hvg_symbols"],
        n_values=700 * 20,
    )
    settings = {"shard_format": "dense", "shard_size": 40, "key": "key", "max_memory": 40_000}
    write_shards(
        DataDirectory(target),
        cells,
        {name: manifest.directory.archive(name) for name in cells.rows},
        genes,
        labels=["cell_type", "n_counts"],
        **(settings | changes),
    )
    return digest_tree(target)


@pytest.mark.parametrize("shard_format", ["dense", "compact"])
@pytest.mark.parametrize("fallback_min_genes", [0, 40])
def test_the_bytes_do_not_depend_on_memory_or_threads(
    pbmc_dir: Path, tmp_path: Path, shard_format: str, fallback_min_genes: int
) -> None:
    settings = {"shard_format": shard_format, "fallback_min_genes": fallback_min_genes}
    expected = write(pbmc_dir, tmp_path / "much", max_memory=1 << 30, **settings)
    assert len(expected) == 18
    for max_memory, n_threads in ((1_000, 1), (20_000, 3), (40_000, 2)):
        found = write(
            pbmc_dir,
            tmp_path / f"{max_memory}",
            max_memory=max_memory,
            n_threads=n_threads,
            **settings,
        )
        assert found == expected


def test_many_buckets_were_in_play(pbmc_dir: Path, tmp_path: Path) -> None:
    with patch.object(writing, "Buckets", wraps=writing.Buckets) as made:
        write(pbmc_dir, tmp_path, max_memory=1_000)
    assert made.call_args.kwargs["n_each"] == 40


def test_what_was_sorted_before_a_kill_is_not_sorted_again(pbmc_dir: Path, tmp_path: Path) -> None:
    expected = write(pbmc_dir, tmp_path / "whole")
    n_written, write_one = 0, contents.ShardWriter.write

    def fail_at_the_fifth(*arguments: Any) -> None:
        nonlocal n_written
        n_written += 1
        if n_written == 5:
            raise KeyboardInterrupt
        write_one(*arguments)

    with (
        patch.object(contents.ShardWriter, "write", fail_at_the_fifth),
        pytest.raises(KeyboardInterrupt),
    ):
        write(pbmc_dir, tmp_path / "killed")
    assert (tmp_path / "killed" / "sorting" / "done.json").exists()
    with patch.object(writing, "sort_cells", side_effect=AssertionError("sorted again")):
        assert write(pbmc_dir, tmp_path / "killed") == expected


@pytest.mark.parametrize("damage", ["key", "size", "missing", "done"])
def test_buckets_that_are_not_whole_are_made_again(
    pbmc_dir: Path, tmp_path: Path, damage: str
) -> None:
    expected = write(pbmc_dir, tmp_path / "whole")
    with (
        patch.object(contents.ShardWriter, "write", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        write(pbmc_dir, tmp_path / "killed", key="other" if damage == "key" else "key")
    sorting = tmp_path / "killed" / "sorting"
    if damage == "size":
        (sorting / "00001").write_bytes(b"")
    elif damage == "missing":
        (sorting / "00001").unlink()
    elif damage == "done":
        (sorting / "done.json").write_text("{")
    assert write(pbmc_dir, tmp_path / "killed") == expected


def test_shards_that_are_there_are_kept_and_others_of_another_key_are_not(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    expected = write(pbmc_dir, tmp_path)
    path = tmp_path / "processed" / "batch_0003.h5"
    before = path.stat().st_mtime_ns
    (tmp_path / "processed" / "batch_0004.h5").unlink()
    with h5py.File(tmp_path / "processed" / "batch_0005.h5", "r+") as file:
        file.attrs["key"] = "other"
    assert write(pbmc_dir, tmp_path) == expected
    assert path.stat().st_mtime_ns == before


def test_the_format_decides_the_key_so_that_a_killed_run_of_another_is_not_mixed(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    expected = write(pbmc_dir, tmp_path / "compact", shard_format="compact")
    write(pbmc_dir, tmp_path / "both", shard_format="dense")
    assert write(pbmc_dir, tmp_path / "both", shard_format="compact") == expected


def test_a_lost_row_is_told_and_the_same_command_goes_on(pbmc_dir: Path, tmp_path: Path) -> None:
    expected = write(pbmc_dir, tmp_path / "whole")
    with (
        patch.object(contents.ShardWriter, "write", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        write(pbmc_dir, tmp_path / "killed")
    bucket = tmp_path / "killed" / "sorting" / "00000"
    bucket.write_bytes(bytes(bucket.stat().st_size))
    with pytest.raises(OSError, match=r"00000 lost rows: run the same command again"):
        write(pbmc_dir, tmp_path / "killed")
    assert write(pbmc_dir, tmp_path / "killed") == expected


def test_a_compact_directory_with_other_genes_in_empty_places_reads_as_a_dense_one(
    tmp_path: Path,
) -> None:
    from support.reading import read_shards

    for name in ("dense", "compact"):
        recipe = pbmc_recipe(fallback_min_genes=40, shard_format=name)
        prepare(recipe, tmp_path / name)
    dense, compact = (read_shards(tmp_path / name) for name in ("dense", "compact"))
    assert np.array_equal(dense.counts, compact.counts)
    replaced = []
    for name in ("dense", "compact"):
        with h5py.File(tmp_path / name / "processed" / "batch_0000.h5") as file:
            replaced.append([file[f"fallback/{part}"][:] for part in ("indptr", "slots", "genes")])
    assert all(map(np.array_equal, *replaced))
    shutil.rmtree(tmp_path / "dense")
