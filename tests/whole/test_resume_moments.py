"""A resumed run is the undisturbed one: the same cells in the same order, the same weights."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from scdiff_data import Pbmc, ScRNADataModule
from support.cases import PBMC_SETTINGS
from support.witness import SaveAlways, Witness, make_trainer

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
    "windows": ({"max_epochs": 2}, {"window_size": 128, "run_size": 8}),
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


@pytest.mark.parametrize("moment", [("batch-end", 3), ("batch-end", 5), ("batch-start", 6)])
@pytest.mark.parametrize("limit", [4, 0.25])
def test_past_a_limit_that_was_lowered_the_epoch_is_over_and_is_validated(
    fits: Fits, limit: float, moment: tuple[str, int]
) -> None:
    _, saver = fits.whole("epochs")
    shorter = fits.fit({"limit_train_batches": limit}, {}, None)
    resumed = fits.fit({"limit_train_batches": limit}, {}, find(saver, *moment)[0])
    assert resumed.events == shorter.events[4:]
    assert resumed.events[0] == ["validation"]


def test_another_batch_size_goes_on_in_the_same_order(fits: Fits) -> None:
    whole, saver = fits.whole("epochs")
    path, n_events = find(saver, "batch-end", 4)
    resumed = fits.fit({}, {"batch_size": 50}, path)

    def cells_of(events: list[list[str]], epoch: int) -> list[str]:
        return [cell for kind, *cells in events if kind == f"train {epoch}" for cell in cells]

    for epoch in range(3):
        before = cells_of(whole.events[:n_events], epoch)
        expected, found = cells_of(whole.events, epoch), cells_of(resumed.events, epoch)
        n_both = min(len(expected), len(before + found))
        assert (before + found)[:n_both] == expected[:n_both]
        assert len(expected) - n_both < 50
    assert [kind for kind, *_ in resumed.events].count("validation") == 3
