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


class Broken(ScRNADataModule):
    """Its training cells cannot be read after some batches."""

    def train_dataloader(self) -> Any:
        loader, n_read = super().train_dataloader(), 0
        gather = type(loader.dataset).__getitem__

        class Dataset(type(loader.dataset)):  # type: ignore[misc]
            def __getitem__(self, rows: Any) -> Any:
                nonlocal n_read
                n_read += 1
                return fail() if n_read > 5 else gather(self, rows)

        loader.dataset.__class__ = Dataset
        return loader


def make_data(data_dir: Path, kind: type[ScRNADataModule] = ScRNADataModule) -> ScRNADataModule:
    return kind(Pbmc(), data_dir, **PBMC_SETTINGS | {"batch_size": 32})


def fit(
    folder: Path,
    data: ScRNADataModule,
    *callbacks: Callback,
    model: Witness | None = None,
    ckpt_path: Path | None = None,
    **settings: Any,
) -> Witness:
    """Train by averaged weights, as the demo does."""
    torch.manual_seed(0 if ckpt_path is None else 1)  # a checkpoint brings its own weights
    model = model or Witness()
    own = [WeightEMA(0.9), *callbacks, StopCheckpoint(folder / "last.ckpt")]
    trainer = make_trainer(folder, {"max_epochs": 2, "callbacks": own} | settings)
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
    data, model, callbacks = make_data(pbmc_dir), Witness(), [At(place, n_steps, fail)]
    if place == "loader":
        data, callbacks = make_data(pbmc_dir, Broken), []
    elif place == "module":  # gradients are there, and would be applied next
        model.on_before_optimizer_step = lambda _: model.global_step < n_steps or fail()
        callbacks = []
    with pytest.raises(RuntimeError, match="broken") as failed:
        fit(tmp_path, data, *callbacks, model=model)
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
        fit(tmp_path, make_data(pbmc_dir), model=kind())
    assert not list(tmp_path.glob("*.ckpt"))


class Slow(Witness):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)


def test_a_run_that_max_time_ended_in_mid_epoch_goes_on_there(
    pbmc_dir: Path, tmp_path: Path, whole: Witness, caplog: pytest.LogCaptureFixture
) -> None:
    part = fit(tmp_path, make_data(pbmc_dir), model=Slow(), max_time={"seconds": 0.3})
    n_steps = [kind for kind, *_ in part.events].count("train 0")
    assert 0 < n_steps < N_STEPS
    assert f"go on with ckpt_path={tmp_path / 'last.ckpt'}" in caplog.text
    resumed = fit(tmp_path, make_data(pbmc_dir), ckpt_path=tmp_path / "last.ckpt")
    assert resumed.events == whole.events[n_steps:]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_told_to_stop_these_end_after_the_batch_at_hand_as_not_finished(
    pbmc_dir: Path, tmp_path: Path, stage: str
) -> None:
    class Model(Witness):
        test_step = Witness.validation_step

        def predict_step(self, batch: Any, batch_idx: int) -> None:
            self.write("predict")

    hook = {"validate": "validation"}.get(stage, stage)
    model, shown = Model(), At(f"on_{hook}_batch_start", 0, tell)
    trainer = make_trainer(tmp_path, {"callbacks": [shown, StopCheckpoint(tmp_path / "last.ckpt")]})
    data = make_data(pbmc_dir)
    with exit_when_told(), pytest.raises(SystemExit) as ended:
        getattr(trainer, stage)(model, datamodule=data)
    assert ended.value.code == 143
    assert [kind for kind, *_ in model.events if kind != "validation"] == [
        "predict" if stage == "predict" else "val"
    ]


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_sanity_check_start"])
def test_told_to_stop_before_training_it_ends_as_not_finished(
    pbmc_dir: Path, tmp_path: Path, hook: str
) -> None:
    before, model = signal.getsignal(signal.SIGTERM), Witness()
    with pytest.raises(SystemExit) as ended, exit_when_told():
        fit(tmp_path, make_data(pbmc_dir), At(hook, 0, tell), model=model, num_sanity_val_steps=1)
    assert ended.value.code == 143
    assert not [kind for kind, *_ in model.events if kind.startswith("train")]
    assert not list(tmp_path.glob("*.ckpt"))
    assert signal.getsignal(signal.SIGTERM) is before
