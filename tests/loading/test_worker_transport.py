"""Workers send the batches that the main process would have gathered, several in a message."""

import io
import multiprocessing
import pickle
import resource
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scdiff_data import HVGDataset, ResumableLoader, ScRNADataset, create_dataloader
from scdiff_data.loading import create_hvg_dataloader
from scdiff_data.loading.worker_transport import BatchGroupSampler, SharedSlots
from scdiff_data.sampling.sampler import CellSampler

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")


def contents(loader: Any) -> list[tuple[Any, ...]]:
    """All that a batch holds, in plain values."""
    found = []
    for expression, metadata in loader:
        dense = expression.to_dense() if expression.layout == torch.sparse_csr else expression
        columns = {name: list(map(str, column)) for name, column in metadata.items()}
        found.append((dense.tolist(), columns))
    return found


@pytest.mark.parametrize("num_workers", [1, 2, 4])
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_batches_are_the_same_for_any_workers_however_they_start(
    pbmc_dir: Path, num_workers: int, context: str
) -> None:
    if context == "spawn" and num_workers != 2:
        pytest.skip("one is enough: each starts an interpreter")
    dataset = HVGDataset(pbmc_dir, split="train")
    sampler = CellSampler(len(dataset), 32, seed=1)
    here = contents(ResumableLoader(dataset, sampler))
    there = ResumableLoader(
        dataset, sampler, num_workers=num_workers, multiprocessing_context=context
    )
    assert contents(there) == here


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_every_epoch_has_another_order_whatever_the_workers(
    pbmc_dir: Path, num_workers: int, persistent: bool
) -> None:
    dataset = HVGDataset(pbmc_dir, split="train", labels=[])
    loader = ResumableLoader(
        dataset,
        CellSampler(len(dataset), 64),
        num_workers=num_workers,
        persistent_workers=persistent,
    )
    orders = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        orders.append(tuple(cell for _, metadata in loader for cell in metadata["cell_id"]))
    assert len(set(orders)) == 3


@pytest.mark.parametrize("sparse", [True, False])
def test_whole_gene_batches_survive_the_way_too(pbmc_dir: Path, sparse: bool) -> None:
    here, there = (
        contents(create_dataloader(pbmc_dir, 64, sparse=sparse, num_workers=n)) for n in (0, 2)
    )
    assert here == there


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("n_batches", [1, 3, 16])
def test_runs_taken_apart_are_the_batches(pbmc_dir: Path, n_batches: int, sparse: bool) -> None:
    dataset = ScRNADataset(pbmc_dir, split="train", sparse=sparse)
    sampler = CellSampler(len(dataset), 50, drop_last=False, shuffle=False)
    runs, slots = BatchGroupSampler(sampler, n_batches), SharedSlots(1, 0)
    batches = slots.open((slots(dataset[rows]) for rows in runs), runs.cut())
    assert contents(batches) == contents(dataset[rows] for rows in sampler)


def test_batches_that_are_kept_stay_as_they_came(pbmc_dir: Path) -> None:
    dataset = HVGDataset(pbmc_dir, split="train")
    sampler = CellSampler(len(dataset), 4)  # many messages, so that rooms are used again
    loader = ResumableLoader(dataset, sampler, num_workers=2)
    for _ in range(2):
        kept = list(loader)
        assert contents(kept) == contents(dataset[rows] for rows in sampler)


def n_saved(batch: Any) -> int:
    file = io.BytesIO()
    torch.save(batch, file)
    return len(file.getvalue())


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("kind", ["counts", "tokens", "all genes", "sparse"])
def test_a_batch_is_saved_without_those_that_came_with_it(
    pbmc_dir: Path, kind: str, num_workers: int
) -> None:
    make: dict[str, Callable[..., ResumableLoader]] = {
        "counts": create_hvg_dataloader,
        "tokens": partial(create_hvg_dataloader, count_table=np.arange(32_768, dtype=np.int16)),
        "all genes": create_dataloader,
        "sparse": partial(create_dataloader, sparse=True),
    }
    loader = make[kind](pbmc_dir, 8, num_workers=num_workers)
    (counts, metadata), rows = next(zip(loader, loader.own_sampler, strict=False))
    tensors = {k: v.clone() for k, v in metadata.items() if isinstance(v, torch.Tensor)}
    alone = type(loader.dataset[rows])(counts.clone(), metadata | tensors)
    assert n_saved(type(alone)(counts, metadata)) == n_saved(alone)
    ids = pickle.dumps(metadata["cell_id"])
    assert len(ids) == len(pickle.dumps(loader.dataset[rows].metadata["cell_id"]))


def test_two_iterations_at_a_time_do_not_mix(pbmc_dir: Path) -> None:
    dataset = HVGDataset(pbmc_dir, split="train")
    sampler = CellSampler(len(dataset), 4)
    sampler.set_epoch(0)
    loader = ResumableLoader(dataset, sampler, num_workers=1)
    list(loader)  # leaves rooms behind
    wanted = [dataset[rows].expression for rows in sampler]
    for first, second, expression in zip(loader, loader, wanted, strict=True):
        assert torch.equal(first.expression, expression)
        assert torch.equal(second.expression, expression)


@pytest.mark.parametrize("persistent", [False, True])
def test_an_iteration_that_was_left_does_not_spoil_the_next(
    pbmc_dir: Path, persistent: bool
) -> None:
    dataset = HVGDataset(pbmc_dir, split="train")
    sampler = CellSampler(len(dataset), 4)
    sampler.set_epoch(0)
    loader = ResumableLoader(dataset, sampler, num_workers=2, persistent_workers=persistent)
    wanted = contents(dataset[rows] for rows in sampler)
    for n_batches in (1, 50):
        kept = [batch for batch, _ in zip(loader, range(n_batches), strict=False)]
        assert contents(kept) + contents(loader) == wanted[:n_batches] + wanted


def test_a_pickled_dataset_gives_the_same_cells(pbmc_dir: Path) -> None:
    rows = np.arange(0, 500, 7)
    kinds: list[Callable[[], Any]] = [
        lambda: HVGDataset(pbmc_dir),
        lambda: ScRNADataset(pbmc_dir),
    ]
    for make in kinds:
        dataset = make()
        dataset[rows]  # it has mapped files by now
        copy = pickle.loads(pickle.dumps(dataset))
        assert contents([copy[rows]]) == contents([dataset[rows]])


def open_shards(path: Path) -> list[str]:
    """The data files that this process holds open."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            targets.append(str(link.readlink()))
    return [t for t in targets if t.startswith(str(path)) and t.endswith((".h5", ".h5ad"))]


def test_no_file_handle_survives_a_fork(pbmc_dir: Path) -> None:
    for _ in create_hvg_dataloader(pbmc_dir, 64):
        pass
    next(iter(create_dataloader(pbmc_dir, 64)))
    assert open_shards(pbmc_dir) == []  # maps need none
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        assert pool.apply(open_shards, (pbmc_dir,)) == []


def test_memory_does_not_grow_over_ten_epochs(pbmc_dir: Path) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 32)

    def epoch(number: int) -> int:
        loader.sampler.set_epoch(number)
        for _, metadata in loader:
            metadata["cell_id"].tolist()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for warm_up in range(3):
        before = epoch(warm_up)
    after = [epoch(number) for number in range(3, 13)][-1]
    assert after - before < 2_000  # kB
