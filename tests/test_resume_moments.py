"""A resumed run is the undisturbed one: the same cells in the same order, the same weights."""

import signal
from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import PBMC_SETTINGS
from witness import SaveAlways, Witness, make_trainer, read_journals, run_cells

from scdiff_data import HVGDataset, Pbmc, ScRNADataModule
from scdiff_data.sampler import CellSampler

SMALL = {"batch_size": 32}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


class Fits:
    """Runs on one data directory."""

    def __init__(self, data_dir: Path, folder: Path) -> None:
        self.data_dir, self.folder = data_dir, folder
        self.whole = cache(self._whole)

    def fit(self, trainer: dict[str, Any], data: dict[str, Any], ckpt_path: Path | None) -> Witness:
        torch.manual_seed(0 if ckpt_path is None else 1)  # a checkpoint brings its own weights
        model = Witness()
        datamodule = ScRNADataModule(Pbmc(), self.data_dir, **(PBMC_SETTINGS | SMALL | data))
        make_trainer(self.folder, trainer).fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
        return model

    def _whole(self, name: str) -> tuple[Witness, SaveAlways]:
        """An undisturbed run, with checkpoints of every moment."""
        trainer, data = RUNS[name]
        (self.folder / name).mkdir()
        saver = SaveAlways(self.folder / name)
        return self.fit(trainer | {"callbacks": [saver]}, data, None), saver


RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "epochs": ({}, {}),
    "steps": ({"max_epochs": -1, "max_steps": 45}, {}),
    "validation-in-mid-epoch": ({"val_check_interval": 0.5, "max_epochs": 2}, {}),
    "no-validation": ({"limit_val_batches": 0, "max_epochs": 2}, {}),
    "few-batches-an-epoch": ({"limit_train_batches": 10, "check_val_every_n_epoch": 2}, {}),
    "accumulated-gradients": ({"accumulate_grad_batches": 2, "max_epochs": 2}, {}),
    "blocks": ({"max_epochs": 2}, {"block_size": 8}),
    "balanced": ({"max_epochs": 2}, {"balance": "cell_type"}),
}
MOMENTS = [  # a hook, and how often it was called before
    ("batch-start", 4),
    ("batch-end", 3),
    ("batch-end", 4),
    ("batch-end", 7),
    ("batch-end", 9),
    ("batch-end", 16),
    ("validation-batch-end", 1),
    ("validation-end", 0),
    ("epoch-end", 0),
    ("epoch-start", 1),
    ("batch-end", 20),
]


@pytest.fixture(scope="module")
def fits(pbmc_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Fits:
    return Fits(pbmc_dir, tmp_path_factory.mktemp("fits"))


def find(saver: SaveAlways, hook: str, n_before: int) -> tuple[Path, int] | None:
    """The checkpoint of a moment and the events before it, if it came."""
    names = [name for name in saver.moments if name[4:] == hook]
    if n_before >= len(names):
        return None
    return saver.folder / f"{names[n_before]}.ckpt", saver.moments[names[n_before]]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment[0]}-{moment[1]}")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_from_any_moment_as_if_undisturbed(
    fits: Fits, name: str, moment: tuple[str, int]
) -> None:
    whole, saver = fits.whole(name)
    found = find(saver, *moment)
    if found is None:
        assert name in ("no-validation", "few-batches-an-epoch")
        return
    path, n_events = found
    trainer, data = RUNS[name]
    resumed = fits.fit(trainer, data, path)
    assert resumed.events
    assert resumed.events == whole.events[n_events:]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


@pytest.mark.parametrize("moment", [("batch-end", 4), ("batch-end", 16), ("epoch-end", 0)])
@pytest.mark.parametrize("persistent_workers", [False, True])
def test_with_workers_too(fits: Fits, moment: tuple[str, int], persistent_workers: bool) -> None:
    whole, saver = fits.whole("epochs")
    path, n_events = find(saver, *moment)
    data = {"num_workers": 2, "persistent_workers": persistent_workers}
    resumed = fits.fit({}, data, path)
    assert resumed.events == whole.events[n_events:]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


@pytest.mark.parametrize("second", [("batch-end", 2), ("batch-end", 16), ("validation-end", 0)])
@pytest.mark.parametrize("first", [("batch-end", 4), ("batch-end", 16), ("epoch-end", 0)])
@pytest.mark.parametrize("name", ["epochs", "steps"])
def test_a_resumed_run_can_be_resumed(
    fits: Fits, tmp_path: Path, name: str, first: tuple[str, int], second: tuple[str, int]
) -> None:
    whole, saver = fits.whole(name)
    path, n_events = find(saver, *first)
    again = SaveAlways(tmp_path)
    trainer, data = RUNS[name]
    fits.fit(trainer | {"callbacks": [again]}, data, path)
    path, n_more = find(again, *second)
    resumed = fits.fit(trainer, data, path)
    assert resumed.events
    assert resumed.events == whole.events[n_events + n_more :]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_a_run_that_max_steps_ended_in_mid_epoch_goes_on_there(fits: Fits, tmp_path: Path) -> None:
    whole, _ = fits.whole("steps")
    saver = SaveAlways(tmp_path)
    part = fits.fit({"max_epochs": -1, "max_steps": 20, "callbacks": [saver]}, {}, None)
    path, n_events = find(saver, "train-end", 0)
    assert n_events == len(part.events)
    resumed = fits.fit({"max_epochs": -1, "max_steps": 45}, {}, path)
    assert part.events + resumed.events == whole.events


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    fits: Fits, tmp_path: Path, num_workers: int
) -> None:
    whole, _ = fits.whole("epochs")
    killed = run_cells(
        data_dir=fits.data_dir,
        out=tmp_path,
        data=SMALL | {"num_workers": num_workers},
        trainer={},
        save_every=5,
        kill_at=27,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (before,) = read_journals(tmp_path)
    saved = max(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    assert saved.name == "step=25.ckpt"
    resumed = fits.fit({}, {"num_workers": num_workers}, saved)
    n_after = 27 - 25  # batches of the killed run that its last checkpoint does not count
    assert before[:-n_after] + resumed.events == whole.events
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


# Ranks: how many before and after, and batches of a rank before the checkpoint, of 17 or 35.
BATCH_SIZE = 16
CHANGES = [(1, 2, 9), (2, 1, 9), (1, 2, 34), (1, 2, 35), (2, 1, 17), (2, 1, 26)]


@pytest.fixture(scope="module")
def on_ranks(fits: Fits) -> Callable[..., Path]:
    """Runs on one or two ranks, each of them once."""

    @cache
    def run(n_ranks: int, ckpt_path: Path | None = None) -> Path:
        name = "fresh" if ckpt_path is None else f"{ckpt_path.parent.name}-{ckpt_path.stem}"
        out = fits.folder / f"{name}-on-{n_ranks}"
        strategy = {"devices": 2, "strategy": "ddp"} if n_ranks == 2 else {}
        finished = run_cells(
            data_dir=fits.data_dir,
            out=out,
            data={"batch_size": BATCH_SIZE},
            trainer={"max_epochs": 2} | strategy,
            save_every=1,
            ckpt_path=ckpt_path,
        )
        assert finished.returncode == 0, finished.stderr
        return out

    return run


def order_of(data_dir: Path, epoch: int) -> list[str]:
    """The global order of an epoch."""
    dataset = HVGDataset(data_dir, split="train")
    sampler = CellSampler(len(dataset), 1, seed=42)
    sampler.set_epoch(epoch)
    return dataset[np.concatenate(list(sampler))].metadata["cell_id"].tolist()


def shown_in(out: Path, epoch: int) -> list[str]:
    """What all ranks together were shown in an epoch, in the global order."""
    ranks = [
        list(chain.from_iterable(cells for kind, *cells in events if kind == f"train {epoch}"))
        for events in read_journals(out)
    ]
    return list(chain.from_iterable(zip(*ranks, strict=True)))


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: f"{c[0]}-to-{c[1]}-after-{c[2]}")
def test_another_number_of_ranks_goes_on_in_the_same_order(
    fits: Fits, on_ranks: Callable[..., Path], change: tuple[int, int, int]
) -> None:
    n_before, n_after, n_batches = change
    first = on_ranks(n_before)
    second = on_ranks(n_after, first / f"step={n_batches}.ckpt")
    n_cells = len(order_of(fits.data_dir, 0))
    n_steps = n_cells // (n_before * BATCH_SIZE)
    epoch, n_done = divmod(n_batches - 1, n_steps)
    position = (n_done + 1) * n_before * BATCH_SIZE
    is_last = n_done + 1 == n_steps
    events = read_journals(second)
    assert len(events) == n_after
    for now in range(epoch, 2):
        rest = order_of(fits.data_dir, now)[position if now == epoch else 0 :]
        shown = shown_in(second, now)
        assert shown == rest[: len(shown)]
        if not (now == epoch and is_last):
            assert (
                len(rest) - len(shown) < n_after * BATCH_SIZE
            )  # no more than any epoch leaves out
    held_out = HVGDataset(fits.data_dir, split="val")[:].metadata["cell_id"].tolist()
    validated = chain.from_iterable(
        cells for rank in events for kind, *cells in rank if kind == "val"
    )
    assert sorted(validated) == sorted(held_out * (2 - epoch))
