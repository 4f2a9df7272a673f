"""Batches of a local copy are those of the directory that was sent, whatever comes when."""

import json
import pickle
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scdiff_data import DownloadError, HVGDataset, ScRNADataset, create_hvg_dataloader, prepare
from scdiff_data.loading import TokenDataset
from scdiff_data.remote import fetch_processed
from support import forks
from support.buckets import count_shards, send_small_shards
from support.cases import TESTS, pbmc_recipe


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sent")
    send_small_shards(folder)
    return folder


def copy(sent: Path, folder: Path, n_shards: int | None = None) -> Path:
    """A new copy, which keeps so many shards."""
    n_bytes = (sent / "own/processed/batch_0000.h5").stat().st_size
    limit = None if n_shards is None else n_shards * n_bytes + 2000  # labels take little more
    fetch_processed(str(sent / "bucket"), folder, local_limit=limit)
    return folder


def assert_same(batches: Iterable[Any], expected: Iterable[Any]) -> None:
    for (x, metadata), (x_there, there) in zip(batches, expected, strict=True):
        assert torch.equal(x, x_there)
        assert metadata["cell_id"].tolist() == there["cell_id"].tolist()
        assert torch.equal(metadata["cell_type"], there["cell_type"])


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("order", "n_shards"),
    [
        ({}, None),
        ({"window_size": 150, "run_size": 50}, None),
        ({"window_size": 150, "run_size": 50}, 5),
        ({"split": "val"}, 3),
        ({"balance": "cell_type"}, None),
    ],
    ids=["global", "windows", "limited", "in order", "balanced"],
)
def test_batches_are_the_same_in_every_order_and_after_a_resume_in_mid_epoch(
    sent: Path, tmp_path: Path, order: dict[str, Any], n_shards: int | None, num_workers: int
) -> None:
    there = create_hvg_dataloader(sent / "own", 16, **order)
    here = create_hvg_dataloader(
        copy(sent, tmp_path, n_shards), 16, num_workers=num_workers, **order
    )
    for _ in range(2):
        assert_same(here, there)
        assert count_shards(tmp_path) <= (n_shards or 14)
    for loader in (here, there):
        loader.load_state_dict(here.state_dict() | {"epoch": 5, "position": 32})
    assert_same(here, there)


def test_all_genes_are_not_in_a_bucket(sent: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="local copy of a bucket, which holds no archives"):
        ScRNADataset(copy(sent, tmp_path))


def test_only_what_is_needed_comes(sent: Path, tmp_path: Path) -> None:
    cells = HVGDataset(copy(sent, tmp_path), split="test")
    assert count_shards(tmp_path) == 1  # the first says what genes and labels there are
    assert len(list(create_hvg_dataloader(tmp_path, 16, split="test"))) > 3
    assert count_shards(tmp_path) == 1 + len({row // 50 for row in cells._cells.rows})


def test_columns_of_all_cells_take_no_shard(sent: Path, tmp_path: Path) -> None:
    copy(sent, tmp_path)
    for split in (None, "val"):
        there, here = HVGDataset(sent / "own", split=split), HVGDataset(tmp_path, split=split)
        for name in ("cell_type", "n_counts", "experiment_id"):
            classes = here.read_classes(name)
            assert classes.dtype == there.read_classes(name).dtype
            np.testing.assert_array_equal(classes, there.read_classes(name))
            np.testing.assert_array_equal(here.find_values(name), there.find_values(name))
        for name in ("cell_id", "experiment_id"):
            np.testing.assert_array_equal(here.read_ids(name), there.read_ids(name))
    assert count_shards(tmp_path) == 1


def test_a_window_that_exceeds_the_limit_is_told_with_the_way_out(
    sent: Path, tmp_path: Path
) -> None:
    loader = create_hvg_dataloader(copy(sent, tmp_path, 5), 16)
    with pytest.raises(ValueError, match=r"in 12 shards of .*local_limit=.* and run_size=50"):
        next(iter(loader))
    cells = HVGDataset(tmp_path)  # rows at random places are had all the same
    assert_same([pickle.loads(pickle.dumps(cells))[::9]], [HVGDataset(sent / "own")[::9]])
    assert count_shards(tmp_path) <= 5


def test_disk_space_comes_back_as_soon_as_shards_are_over(sent: Path, tmp_path: Path) -> None:
    loader = create_hvg_dataloader(copy(sent, tmp_path, 5), 16, window_size=100, run_size=50)
    most = 0
    for _ in loader:
        maps = {
            line.split()[4]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if str(tmp_path) in line
        }
        most = max(most, len(maps))
    assert 3 <= most <= 8  # of 12: those of a window and the one before


def test_tokens_and_replaced_genes_come_along(tmp_path: Path) -> None:
    recipe = pbmc_recipe(shard_size=50, fallback_min_genes=40, shard_format="compact")
    prepare(recipe, tmp_path / "own", processed_url=str(tmp_path / "bucket"))
    here = HVGDataset(copy(tmp_path, tmp_path / "copy", 3))
    there = HVGDataset(tmp_path / "own")
    table = (np.arange(32768) > 0).astype(np.uint8)
    for rows in np.arange(700).reshape(-1, 50):
        (x, metadata), (x_there, known) = (TokenDataset(d, table)[rows] for d in (here, there))
        assert torch.equal(x, x_there)
        assert torch.equal(metadata["gene_ids"], known["gene_ids"])
    assert count_shards(tmp_path / "copy") <= 3


RANKS = """
import json, sys
from scdiff_data import create_hvg_dataloader
rank, order = int(sys.argv[2]), json.loads(sys.argv[3])
loader = create_hvg_dataloader(sys.argv[1], 16, num_replicas=2, rank=rank, **order)
print(json.dumps([[m["cell_id"].tolist(), x.sum(1).tolist()] for x, m in loader for _ in [0]]))
"""


@pytest.mark.soak
def test_two_ranks_share_a_copy(sent: Path, tmp_path: Path) -> None:
    order = {"window_size": 200, "run_size": 50}
    copy(sent, tmp_path / "copy", 7)
    (tmp_path / "said").mkdir()
    arguments = [(str(tmp_path / "copy"), str(rank), json.dumps(order)) for rank in range(2)]
    running = [forks.Fork(RANKS, *a, cwd=TESTS, folder=tmp_path / "said") for a in arguments]
    for rank, fork in enumerate(running):
        assert fork.wait(60) == 0, fork.stderr
        there = create_hvg_dataloader(sent / "own", 16, num_replicas=2, rank=rank, **order)
        expected = [[m["cell_id"].tolist(), x.sum(1).tolist()] for x, m in there]
        assert json.loads(fork.stdout) == expected
    assert count_shards(tmp_path / "copy") <= 7


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_shard_that_cannot_be_had_ends_the_iteration(
    sent: Path, tmp_path: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(sent, tmp_path)
    shutil.copytree(sent / "own/processed", tmp_path / "processed")
    for path in (tmp_path / "processed").glob("batch_001*"):
        path.unlink()
    monkeypatch.setattr("scdiff_data.fetching.fetcher._COMMAND", "raise SystemExit(3)")
    loader = create_hvg_dataloader(tmp_path, 16, num_workers=num_workers)
    n_batches = 0
    with pytest.raises(DownloadError, match="ended with 3"):  # noqa: PT012
        for _ in loader:
            n_batches += 1
    assert n_batches < len(loader)
