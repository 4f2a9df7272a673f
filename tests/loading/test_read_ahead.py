"""What will be read is asked for before it is, and what is served does not change by it."""

import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scdiff_data import CellSampler, HVGDataset, ScRNADataset, create_hvg_dataloader
from scdiff_data.base.hdf5_map import DiskWatch
from scdiff_data.loading.read_ahead import HintThread, ReadAhead

sizes = st.tuples(st.integers(1, 60), st.integers(1, 40), st.integers(1, 7), st.integers(1, 3))


class Recorder:
    """Stands for a dataset; keeps what it was asked for."""

    def __init__(self, *, is_cold: bool = True) -> None:
        self.rows: set[int] = set()
        self.columns: set[int] = set()
        self.watch = DiskWatch()
        self.watch.is_cold = is_cold

    def ask_for(self, rows: NDArray[np.int64]) -> None:
        self.rows |= set(rows.tolist())

    def ask_for_columns(self, runs: NDArray[np.int64]) -> None:
        self.columns |= {row for first, stop in runs.tolist() for row in range(first, stop)}


class RunRecorder(Recorder):
    """The same, of one that can be asked for runs."""

    def ask_for_runs(self, runs: NDArray[np.int64]) -> None:
        asked = {row for first, stop in runs.tolist() for row in range(first, stop)}
        assert asked <= self.columns, "columns say where rows lie, and come first"
        self.rows |= asked


def sample(shuffle: Any, size: tuple[int, int, int, int], *, start: int) -> CellSampler:
    n_cells, window, batch, n_ranks = size
    n_cells, run = max(n_cells, batch * n_ranks), min(3, window)
    sampler = CellSampler(
        n_cells,
        batch,
        n_ranks=n_ranks,
        rank=n_ranks - 1,
        shuffle=shuffle,
        drop_last=bool(shuffle),
        window_size=window,
        run_size=run,
    )
    sampler.start = min(start, n_cells - 1) // sampler.global_batch_size * sampler.global_batch_size
    return sampler


@settings(max_examples=80)
@given(size=sizes, start=st.integers(0, 60), shuffle=st.sampled_from(["window", "global", False]))
def test_batches_stay_as_they_are(size: Any, start: int, shuffle: Any) -> None:
    sampler = sample(shuffle, size, start=start)
    plain = [rows.tolist() for rows in sampler]
    for dataset in (RunRecorder(), Recorder(), Recorder(is_cold=False), object()):
        for gathers_here in (True, False):
            ahead = ReadAhead(sampler, sampler, dataset, gathers_here=gathers_here)
            assert [rows.tolist() for rows in ahead] == plain


@settings(max_examples=80)
@given(size=sizes, start=st.integers(0, 60), shuffle=st.sampled_from(["window", False]))
def test_runs_are_asked_for_before_their_rows_are_served(
    size: Any, start: int, shuffle: Any
) -> None:
    sampler, dataset = sample(shuffle, size, start=start), RunRecorder()
    for rows in ReadAhead(sampler, sampler, dataset, gathers_here=True):
        assert set(rows.tolist()) <= dataset.rows


def test_no_more_than_this_window_and_the_next_is_asked_for() -> None:
    sampler, dataset = CellSampler(1_000, 10, window_size=100, run_size=10), RunRecorder()
    for number, _ in enumerate(ReadAhead(sampler, sampler, dataset, gathers_here=True)):
        served = 10 * (number + 1)
        # Windows begin and end within a run, which both ask for.
        assert len(dataset.rows) <= -(-served // 100) * 100 + 100 + 20


def test_while_rows_come_from_the_disk_those_of_later_batches_are_asked_for() -> None:
    sampler, dataset = CellSampler(1_000, 10, shuffle="global"), Recorder()
    batches = list(sampler)
    served = []
    for rows in ReadAhead(sampler, sampler, dataset, gathers_here=True):
        served.append(rows)
        if 8 <= len(served) <= len(batches) - 5:
            assert set(batches[len(served) + 3].tolist()) <= dataset.rows


def test_rows_in_memory_are_not_asked_for() -> None:
    sampler, dataset = CellSampler(1_000, 10, shuffle="global"), Recorder(is_cold=False)
    list(ReadAhead(sampler, sampler, dataset, gathers_here=True))
    assert dataset.rows == set()


def test_where_this_process_gathers_a_thread_tells_the_system_in_order() -> None:
    told: list[tuple[int, str]] = []

    def hint(number: int) -> None:
        told.append((number, threading.current_thread().name))

    with HintThread() as tell:
        for number in range(100):
            tell(hint, number)
            assert len(told) >= number - 9  # the rest waits
        tell(hint, 100)
        while len(told) < 101:
            time.sleep(0.001)
    assert [number for number, _ in told] == list(range(101))
    first, *others = (name for _, name in told)
    assert first == "MainThread"
    assert all(name.startswith("read-ahead") for name in others)


@pytest.mark.parametrize("shuffle", ["window", "global"])
def test_hints_on_their_way_keep_maps_that_others_took_the_place_of(
    compact_dir: Path, shuffle: str
) -> None:
    with patch("scdiff_data.shards.rows._MOST_MAPS", 2):
        loader = create_hvg_dataloader(compact_dir, 8, shuffle=shuffle, window_size=64, run_size=4)
        whole = HVGDataset(compact_dir, split="train")
        for epoch in range(3):
            loader.sampler.set_epoch(epoch)
            rows = list(loader.sampler)
            loader.dataset.watch.is_cold = True
            for batch, expected in zip(loader, rows, strict=True):
                assert torch.equal(batch.expression, whole[expected].expression)


@pytest.mark.parametrize("kind", [HVGDataset, ScRNADataset])
def test_a_dataset_that_is_asked_for_rows_gives_the_same(
    pbmc_dir: Path, kind: type[HVGDataset | ScRNADataset]
) -> None:
    dataset, rows = kind(pbmc_dir, split="val"), np.array([3, 0, 41, 41])
    before = dataset[rows]
    dataset.ask_for(rows)
    dataset.watch.is_cold = True  # from now on it asks for its rows by itself
    assert np.array_equal(before.expression.numpy(), dataset[rows].expression.numpy())
    dataset.ask_for(np.array([-1, 10**6])[:1])


@pytest.mark.parametrize("folder", ["pbmc_dir", "compact_dir"])
def test_runs_over_the_ends_of_shards_can_be_asked_for(
    folder: str, request: pytest.FixtureRequest
) -> None:
    dataset = HVGDataset(request.getfixturevalue(folder))
    runs = np.array([[290, 310], [0, 700], [699, 700], [300, 600]])
    dataset.ask_for_columns(runs)
    dataset.ask_for_runs(runs)
    dataset.ask_for_runs(np.empty((0, 2), np.int64))


def test_batches_of_windows_are_the_same_from_both_formats(
    pbmc_dir: Path, compact_dir: Path
) -> None:
    loaders = [
        create_hvg_dataloader(folder, 32, window_size=100, run_size=8)
        for folder in (pbmc_dir, compact_dir)
    ]
    for dense, compact in zip(*loaders, strict=True):
        assert np.array_equal(dense.expression.numpy(), compact.expression.numpy())
        assert dense.metadata["cell_id"].tolist() == compact.metadata["cell_id"].tolist()
