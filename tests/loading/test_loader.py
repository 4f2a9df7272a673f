"""Loaders give every epoch its order, and go on where they were left."""

import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scdiff_data import (
    HVGDataset,
    ResumableLoader,
    TokenBatch,
    TokenDataset,
    create_dataloader,
    create_hvg_dataloader,
)
from scdiff_data.sampling.keyed_permutation import KeyedPermutation
from scdiff_data.sampling.order import WindowPermutation
from scdiff_data.sampling.sampler import CellSampler


def ids_of(loader: ResumableLoader) -> list[list[str]]:
    return [metadata["cell_id"].tolist() for _, metadata in loader]


def place_of(loader: ResumableLoader) -> tuple[int, int]:
    state = loader.state_dict()
    return state["epoch"], state["position"]


def test_two_lines_give_batches(pbmc_dir: Path) -> None:
    for expression, metadata in create_hvg_dataloader(pbmc_dir, batch_size=32):
        assert expression.shape == (32, 64)
        assert expression.dtype == torch.int16
        assert len(metadata["cell_id"]) == len(metadata["total_counts"]) == 32
    expression, _ = next(iter(create_dataloader(pbmc_dir / "processed", batch_size=32)))
    assert expression.shape == (32, 765)


def test_unshuffled_loaders_give_every_cell_of_the_split_in_order(pbmc_dir: Path) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 32, split="val", shuffle=False)
    expected = HVGDataset(pbmc_dir, split="val")[:].metadata["cell_id"]
    assert list(chain.from_iterable(ids_of(loader))) == expected.tolist()


class OnlyEvenCells(HVGDataset):
    """A user's: does more with a batch."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(2 * (index // 2))


def make_tokens(folder: Path, **settings: Any) -> TokenDataset:
    return TokenDataset(HVGDataset(folder, **settings), np.arange(32768, dtype=np.int16))


@pytest.mark.parametrize("make", [HVGDataset, OnlyEvenCells, make_tokens])
def test_batches_of_a_loader_are_those_of_its_dataset_alone_in_memory(
    pbmc_dir: Path, make: Any
) -> None:
    dataset = make(pbmc_dir, split="train")
    sampler = CellSampler(len(dataset), 32, drop_last=False)
    batches = list(ResumableLoader(dataset, sampler))
    assert len(batches) == len(sampler) > 5  # more than are read together
    for rows, (values, metadata) in zip(sampler, batches, strict=True):
        expected, known = dataset[rows]
        assert torch.equal(values, expected)
        assert metadata["cell_id"].tolist() == known["cell_id"].tolist()
        for name in ("total_counts", "cell_type"):
            assert torch.equal(metadata[name], known[name])
            column = metadata[name].untyped_storage()
            assert column.nbytes() == len(rows) * metadata[name].itemsize


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_epoch_has_its_own_order_the_same_for_any_workers(
    pbmc_dir: Path, num_workers: int
) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 32, num_workers=num_workers)
    reference = create_hvg_dataloader(pbmc_dir, 32)
    orders = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        reference.sampler.set_epoch(epoch)
        orders.append(ids_of(loader))
        assert orders[-1] == ids_of(reference)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_restored_loader_goes_on_after_the_last_batch_handed_out(
    pbmc_dir: Path, num_workers: int
) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 32, num_workers=num_workers)
    loader.sampler.set_epoch(2)
    whole = ids_of(loader)
    iterator = iter(loader)
    for _ in range(5):
        next(iterator)
    state = loader.state_dict()  # workers have fetched more ahead: that does not count
    assert (state["epoch"], state["position"]) == (2, 5 * 32)

    other = create_hvg_dataloader(pbmc_dir, 32, num_workers=num_workers)
    other.load_state_dict(state)
    resumed = iter(other)  # Lightning makes the iterator first …
    other.sampler.set_epoch(2)  # … and sets the epoch afterwards
    assert [metadata["cell_id"].tolist() for _, metadata in resumed] == whole[5:]
    assert len(other) == len(whole)
    other.sampler.set_epoch(3)
    assert len(ids_of(other)) == len(whole)


def test_a_state_of_another_epoch_starts_that_epoch_afresh(pbmc_dir: Path) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 32)
    loader.load_state_dict({"epoch": 0, "position": 64})
    loader.sampler.set_epoch(1)
    assert len(ids_of(loader)) == len(loader)


def test_a_restored_state_is_still_the_state_before_the_first_batch(pbmc_dir: Path) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 32)
    loader.load_state_dict({"epoch": 4, "position": 64})
    iter(loader)
    assert place_of(loader) == (4, 64)
    loader.sampler.set_epoch(5)
    assert place_of(loader) == (5, 0)


def test_an_epoch_that_is_over_goes_on_with_the_next_unless_it_is_said_to_be_open(
    pbmc_dir: Path,
) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 32)
    loader.sampler.set_epoch(3)
    following = ids_of(loader)
    loader.sampler.set_epoch(2)
    ids_of(loader)
    state = loader.state_dict()
    other = create_hvg_dataloader(pbmc_dir, 32)
    other.load_state_dict(state)
    assert ids_of(other) == following
    other.load_state_dict(state)
    other.sampler.set_epoch(2)
    assert ids_of(other) == []


def test_a_loader_leaves_the_global_random_state_alone(pbmc_dir: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ids_of(create_hvg_dataloader(pbmc_dir, 32))
    assert torch.equal(torch.get_rng_state(), before)


def test_ranks_share_the_order(pbmc_dir: Path) -> None:
    dataset = HVGDataset(pbmc_dir, split="train")
    loaders = [
        ResumableLoader(dataset, CellSampler(len(dataset), 16, n_ranks=2, rank=rank, seed=3))
        for rank in range(2)
    ]
    single = ResumableLoader(dataset, CellSampler(len(dataset), 32, seed=3))
    for batches in zip(*map(ids_of, loaders), ids_of(single), strict=True):
        assert np.array(batches[:2]).T.ravel().tolist() == batches[2]


@pytest.mark.parametrize("make", [create_hvg_dataloader, create_dataloader])
def test_windows_and_balance_reach_the_loader(pbmc_dir: Path, make: Any) -> None:
    for split in ("train", "val"):
        ids = HVGDataset(pbmc_dir, split=split)[:].metadata["cell_id"]
        windows = WindowPermutation(len(ids), 40, 16, 1, 0)
        for shuffle, order in {
            "window": windows,
            True: windows,
            "global": KeyedPermutation(len(ids), 1, 0),
        }.items():
            sizes = {"shuffle": shuffle, "window_size": 40, "run_size": 16}
            _, metadata = next(iter(make(pbmc_dir, 50, split=split, seed=1, **sizes)))
            assert metadata["cell_id"].tolist() == ids[order(np.arange(50))].tolist()
    balanced = make(pbmc_dir, 64, balance="cell_type")
    names = balanced.dataset.categories["cell_type"]
    counts = np.zeros(len(names))
    for epoch in range(8):
        balanced.sampler.set_epoch(epoch)
        for _, metadata in balanced:
            counts += np.bincount(metadata["cell_type"].numpy(), minlength=len(names))
    share, n = counts / counts.sum(), counts.sum()
    expected = 1 / len(names)
    assert np.abs(share - expected).max() < 5 * np.sqrt(expected / n)
    with pytest.raises(ValueError, match=r"balance=tissue.*'cell_type'.*'experiment_id'"):
        make(pbmc_dir, 64, balance="tissue")


@pytest.mark.parametrize("folder", ["pbmc_dir", "compact_dir"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_narrow_tokens_come_in_place_of_counts(
    folder: str, dtype: Any, num_workers: int, request: pytest.FixtureRequest
) -> None:
    data_dir = request.getfixturevalue(folder)
    table = (np.arange(32_768) % 200).astype(dtype)
    options = {"n_hvgs": 50, "num_workers": num_workers}
    tokens = create_hvg_dataloader(data_dir, 64, count_table=table, **options)
    for counts, batch in zip(create_hvg_dataloader(data_dir, 64, n_hvgs=50), tokens, strict=True):
        assert isinstance(batch, TokenBatch)
        assert batch.tokens.numpy().dtype == dtype
        assert np.array_equal(batch.tokens.numpy(), table[counts.expression.numpy()])
        assert batch.metadata["cell_id"].tolist() == counts.metadata["cell_id"].tolist()


def test_a_loader_says_how_long_its_batches_were_waited_for(pbmc_dir: Path) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 64)
    list(loader)
    before = loader.seconds_waited
    assert before > 0
    for _ in loader:
        time.sleep(0.02)  # is not waited for the loader
    assert loader.seconds_waited - before < 0.02 * len(loader)
