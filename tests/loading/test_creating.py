"""Loaders of two lines: each iteration is an epoch, and states of other orders are refused."""

import pickle
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from lightning import Fabric
from torch.utils.data import DistributedSampler, RandomSampler

from scdiff_data import (
    CellSampler,
    HVGDataset,
    ResumableLoader,
    choose_genes_again,
    create_dataloader,
    create_hvg_dataloader,
)

Batches = list[list[str]]


def ids_of(loader: Any) -> Batches:
    return [metadata["cell_id"].tolist() for _, metadata in loader]


@pytest.mark.parametrize(
    "settings",
    [{}, {"shuffle": "global"}, {"balance": "cell_type"}, {"num_workers": 2}],
    ids=["windows", "global", "balanced", "workers"],
)
def test_iterating_again_is_the_next_epoch(pbmc_dir: Path, settings: dict[str, Any]) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 32, **settings)
    told = create_hvg_dataloader(pbmc_dir, 32, **settings)
    for epoch in range(3):
        told.sampler.set_epoch(epoch)
        assert ids_of(loader) == ids_of(told)
    next(iter(loader))  # left early, it was one all the same
    told.sampler.set_epoch(4)
    assert ids_of(loader) == ids_of(told) == ids_of(told)  # told, it stays there


def test_all_genes_come_in_another_order_each_epoch_too(pbmc_dir: Path) -> None:
    loader = create_dataloader(pbmc_dir, 32)
    assert ids_of(loader) != ids_of(loader)


@pytest.mark.parametrize("n_batches", [5, 17])
def test_a_plain_loop_goes_on_where_its_state_was_kept(pbmc_dir: Path, n_batches: int) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 32)
    first = ids_of(loader)
    second, states = [], []
    for _, metadata in loader:
        second.append(metadata["cell_id"].tolist())
        states.append(loader.state_dict())
    third = ids_of(loader)
    assert len(first) == len(second) == 17

    restored = create_hvg_dataloader(pbmc_dir, 32)
    restored.load_state_dict(states[n_batches - 1])
    if n_batches < 17:
        assert ids_of(restored) == second[n_batches:]
    assert ids_of(restored) == third


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 2}, "seed: 0 there, 2 here"),
        ({"balance": "cell_type"}, r"classes: 0 there, \d+ here"),
        ({"split": "test"}, r"n_cells: 569 there, 66 here, shuffle: 1 there, 0 here"),
        ({"split": None}, r"n_cells: 569 there, 700 here"),
        ({"shuffle": False}, "shuffle: 1 there, 0 here"),
        ({"window_size": 64, "run_size": 8}, "window_size: 0 there, 64 here"),
    ],
)
def test_a_state_of_another_order_is_refused_in_mid_epoch_and_after_an_epoch_is_not(
    pbmc_dir: Path, settings: dict[str, Any], message: str
) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 32)
    other = create_hvg_dataloader(pbmc_dir, 32, **settings)
    iterator = iter(loader)
    next(iterator)
    with pytest.raises(ValueError, match=f"another order of cells.*{message}"):
        other.load_state_dict(loader.state_dict())
    for _ in iterator:
        pass
    other.load_state_dict(loader.state_dict())
    told = create_hvg_dataloader(pbmc_dir, 32, **settings)
    told.sampler.set_epoch(1)
    assert ids_of(other) == ids_of(told)


def test_a_state_of_other_cells_is_refused_and_of_other_genes_is_not(data_dir: Path) -> None:
    val, test = (
        create_hvg_dataloader(data_dir, 8, split=split, shuffle=True) for split in ("val", "test")
    )
    for loader in (val, test):  # as if the splits were as large as each other
        loader.own_sampler.n_cells = 64
    next(iter(val))
    with pytest.raises(ValueError, match=r"another order of cells \(cells: \d+ there, \d+ here\)"):
        test.load_state_dict(val.state_dict())
    state = val.state_dict()
    choose_genes_again(data_dir, n_hvgs=32, replace=True)
    fewer = create_hvg_dataloader(data_dir, 8, split="val", shuffle=True)
    fewer.own_sampler.n_cells = 64
    fewer.load_state_dict(state)
    assert next(iter(fewer))[0].shape == (8, 32)


def test_validation_and_test_cells_come_in_order_and_none_is_left_out(pbmc_dir: Path) -> None:
    for split in ("val", "test"):
        cells = HVGDataset(pbmc_dir, split=split).read_ids().tolist()
        for create in (create_hvg_dataloader, create_dataloader):
            assert list(chain.from_iterable(ids_of(create(pbmc_dir, 32, split=split)))) == cells
    balanced = create_hvg_dataloader(pbmc_dir, 32, split="val", balance="cell_type")
    assert balanced.sampler.shuffle


def test_ranks_that_are_given_share_the_cells(pbmc_dir: Path) -> None:
    for create in (create_hvg_dataloader, create_dataloader):
        ranks = [create(pbmc_dir, 32, num_replicas=2, rank=rank) for rank in range(2)]
        first, second = (list(chain.from_iterable(ids_of(loader))) for loader in ranks)
        assert len({*first, *second}) == 2 * len(first) == 2 * 256


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({"num_replicas": 2}, "belong together, got 2 and None"),
        ({"rank": 1}, "belong together, got None and 1"),
        ({"num_replicas": 2, "rank": 2}, "got 2 of 2"),
    ],
)
def test_half_of_the_ranks_is_refused(pbmc_dir: Path, ranks: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_hvg_dataloader(pbmc_dir, 32, **ranks)


def test_samplers_that_cannot_be_resumed_are_refused(pbmc_dir: Path) -> None:
    cells = HVGDataset(pbmc_dir, split="train")
    with pytest.raises(ValueError, match=r"takes its batches from a CellSampler, got RandomSampl"):
        ResumableLoader(cells, RandomSampler(cells))
    with pytest.raises(ValueError, match=r"batches are those of its sampler"):
        ResumableLoader(cells, CellSampler(len(cells), 32), batch_sampler=[[0]])


def test_a_sampler_that_has_no_ranks_yet_can_be_pickled(pbmc_dir: Path) -> None:
    sampler = create_hvg_dataloader(pbmc_dir, 32).sampler
    assert pickle.loads(pickle.dumps(sampler)).order == sampler.order


@pytest.mark.parametrize("place", [(0, 5), (0, 16), (1, 16), (2, 3)])
def test_under_fabric_a_state_goes_on_from_any_place(
    pbmc_dir: Path, tmp_path: Path, place: tuple[int, int]
) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)

    def make() -> Any:
        return fabric.setup_dataloaders(create_hvg_dataloader(pbmc_dir, 32))

    def iterate(loader: Any, n_epochs: int, save_at: tuple[int, int] | None = None) -> Batches:
        seen = []
        for epoch in range(n_epochs):
            for number, (_, metadata) in enumerate(loader):
                seen.append(metadata["cell_id"].tolist())
                if (epoch, number) == save_at:
                    fabric.save(tmp_path / "run.ckpt", {"loader": loader})
        return seen

    whole = iterate(make(), 4, place)
    n_seen = 17 * place[0] + place[1] + 1
    n_left = 4 - n_seen // 17
    restored = make()
    fabric.load(tmp_path / "run.ckpt", {"loader": restored})
    assert iterate(restored, n_left, (1, 4)) == whole[n_seen:]
    # The second state is of the restored run's second iteration.
    again = make()
    fabric.load(tmp_path / "run.ckpt", {"loader": again})
    assert iterate(again, n_left - 1) == whole[17 * (n_seen // 17 + 1) + 5 :]
    # As many iterations as Fabric has counted say nothing to a loader that goes back, either.
    fabric.load(tmp_path / "run.ckpt", {"loader": again})
    assert iterate(again, n_left - 1) == whole[17 * (n_seen // 17 + 1) + 5 :]


def test_a_state_that_was_restored_before_fabric_makes_ranks_goes_on(pbmc_dir: Path) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 32)
    told = create_hvg_dataloader(pbmc_dir, 32, num_replicas=1, rank=0)
    told.sampler.set_epoch(3)
    loader.load_state_dict({"epoch": 3, "position": 64})
    divided = DistributedSampler(loader.sampler, num_replicas=1, rank=0)
    built_again = ResumableLoader(
        loader.dataset, divided, shuffle=False, own_sampler=loader.own_sampler
    )
    built_again.sampler.set_epoch(0)  # by Fabric
    assert ids_of(Fabric(accelerator="cpu").setup_dataloaders(built_again)) == ids_of(told)[2:]
