"""A run that fails, or is told to stop, leaves a checkpoint from which it goes on exactly."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from scdiff_data import Pbmc, ScRNADataModule
from scdiff_data.callbacks import StopCheckpoint, WeightEMA, exit_when_told
from support.cases import PBMC_SETTINGS
from support.witness import Witness, make_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]
N_STEPS = 17
"""Full batches of 32 of the training cells."""


class At(Callback):
    """Does something at the first call of a hook after so many steps."""

    def __init__(self, hook: str, n_steps: int, action: Any) -> None:
        self.n_steps, self.action = n_steps, action
        setattr(self, hook, self._act)

    def _act(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step >= self.n_steps:
            self.action()


def fail() -> None:
    raise RuntimeError("broken")


def tell() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class Refuses(Witness):
    """Fails when the gradients of its sixth step are there."""

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if self.global_step == 5:
            fail()


def break_loader(data: ScRNADataModule) -> None:
    """Let its sixth batch of training cells fail to be read."""
    make_loader = data.train_dataloader

    def make_broken() -> Any:
        loader, n_read = make_loader(), 0

        class Broken(type(loader.dataset)):  # type: ignore[misc]
            def __getitem__(self, rows: Any) -> Any:
                nonlocal n_read
                n_read += 1
                return fail() if n_read > 5 else super().__getitem__(rows)

        loader.dataset.__class__ = Broken
        return loader

    data.train_dataloader = make_broken  # type: ignore[method-assign]


def make_data(data_dir: Path) -> ScRNADataModule:
    return ScRNADataModule(Pbmc(), data_dir, **PBMC_SETTINGS | {"batch_size": 32})


def fit(
    folder: Path,
    data: ScRNADataModule,
    *callbacks: Callback,
    kind: type[Witness] = Witness,
    ckpt_path: Path | None = None,
    **settings: Any,
) -> Witness:
    """Train by averaged weights, as the demo does."""
    torch.manual_seed(0 if ckpt_path is None else 1)  # a checkpoint brings its own weights
    model = kind()
    # What fails before the average has taken the step in is the harder case.
    own = [*callbacks, WeightEMA(0.9), StopCheckpoint(folder / "last.ckpt")]
    settings = {"max_epochs": 2, "enable_checkpointing": True, "callbacks": own} | settings
    trainer = make_trainer(folder, settings)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    return model


@pytest.fixture(scope="module")
def whole(pbmc_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Witness:
    """An undisturbed run."""
    return fit(tmp_path_factory.mktemp("whole"), make_data(pbmc_dir))


@pytest.mark.parametrize(
    ("place", "n_steps"),
    [
        ("on_train_batch_start", 5),
        ("module", 5),
        ("on_train_batch_end", 5),
        ("on_validation_batch_end", N_STEPS),
        ("loader", 5),
    ],
)
def test_after_an_exception_the_last_whole_step_is_kept_beside(
    pbmc_dir: Path, tmp_path: Path, whole: Witness, place: str, n_steps: int
) -> None:
    data = make_data(pbmc_dir)
    if place == "loader":
        break_loader(data)
    callbacks = [At(place, n_steps, fail)] if place.startswith("on_") else []
    with pytest.raises(RuntimeError, match="broken") as failed:
        fit(tmp_path, data, *callbacks, kind=Refuses if place == "module" else Witness)
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["exception.ckpt"]
    path = tmp_path / "exception.ckpt"
    assert failed.value.__notes__ == [f"go on with ckpt_path={path}, the last whole step"]
    resumed = fit(tmp_path, make_data(pbmc_dir), ckpt_path=path)
    assert resumed.events == whole.events[n_steps:]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


class HalfSGD(torch.optim.SGD):
    """Fails after it changed the first weight."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        if getattr(self, "n_steps", 0) == 3:
            fail()
        self.n_steps = getattr(self, "n_steps", 0) + 1


class Halves(Witness):
    def configure_optimizers(self) -> Any:
        return HalfSGD(self.parameters(), 1e-3)


class TwoOptimizers(Witness):
    """Fails between the steps of two optimizers."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD([weight], 1e-3) for weight in self.parameters()]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        self.manual_backward(super().training_step(batch, batch_idx))
        first.step()
        if batch_idx == 3:
            fail()
        second.step()


@pytest.mark.parametrize("kind", [Halves, TwoOptimizers])
def test_half_a_step_is_not_kept(pbmc_dir: Path, tmp_path: Path, kind: type[Witness]) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, make_data(pbmc_dir), kind=kind)
    assert not list(tmp_path.glob("*.ckpt"))


class Slow(Witness):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)


def test_a_run_that_max_time_ended_in_mid_epoch_goes_on_there(
    pbmc_dir: Path, tmp_path: Path, whole: Witness, caplog: pytest.LogCaptureFixture
) -> None:
    part = fit(tmp_path, make_data(pbmc_dir), kind=Slow, max_time={"seconds": 0.3})
    n_steps = [kind for kind, *_ in part.events].count("train 0")
    assert 0 < n_steps < N_STEPS
    assert f"go on with ckpt_path={tmp_path / 'last.ckpt'}" in caplog.text
    again = {"ckpt_path": tmp_path / "last.ckpt"}
    assert not fit(tmp_path, make_data(pbmc_dir), max_time={"seconds": 0.3}, **again).events
    assert "nothing was left to train; to go on, raise max_epochs" in caplog.text
    resumed = fit(tmp_path, make_data(pbmc_dir), **again)
    assert resumed.events == whole.events[n_steps:]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_told_to_stop_these_end_after_the_batch_at_hand_as_not_finished(
    pbmc_dir: Path, tmp_path: Path, stage: str
) -> None:
    class Model(Witness):
        test_step = Witness.validation_step

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            self.write("predict")
            return batch[0].sum(1)

    hook = {"validate": "validation"}.get(stage, stage)
    callbacks = [At(f"on_{hook}_batch_start", 0, tell), StopCheckpoint(tmp_path / "last.ckpt")]
    model = Model()
    trainer = make_trainer(tmp_path, {"enable_checkpointing": True, "callbacks": callbacks})
    data = make_data(pbmc_dir)
    with exit_when_told(), pytest.raises(SystemExit) as ended:
        getattr(trainer, stage)(model, datamodule=data)
    assert ended.value.code == 143
    assert [kind for kind, *_ in model.events if kind != "validation"] == [
        "predict" if stage == "predict" else "val"
    ]


class Untrained(Callback):
    def on_train_batch_start(self, *_: Any) -> None:
        fail()


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_sanity_check_start"])
def test_told_to_stop_before_training_it_ends_as_not_finished(
    pbmc_dir: Path, tmp_path: Path, hook: str
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, exit_when_told():
        fit(tmp_path, make_data(pbmc_dir), At(hook, 0, tell), Untrained(), num_sanity_val_steps=1)
    assert ended.value.code == 143
    assert not list(tmp_path.glob("*.ckpt"))
    assert signal.getsignal(signal.SIGTERM) is before
