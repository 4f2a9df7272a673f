"""A DataModule at its edges: other classes, resumes that fail, searches, a module's own hooks."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.tuner import Tuner

from scdiff_data import LogBinTokens, Pbmc, ScRNADataModule, TokenBatch, create_hvg_dataloader
from support.cases import PBMC_SETTINGS
from support.foreign import Seeing
from support.trainers import quiet_trainer

PBMC = PBMC_SETTINGS | {"batch_size": 32}
SHORT: dict[str, Any] = {"max_epochs": 3, "limit_train_batches": 5, "num_sanity_val_steps": 0}
"""Three epochs of five batches: Lightning alone would skip one after a step 5."""


class Own(ScRNADataModule):
    """A project's own, with a setting and a state more."""

    def __init__(self, data_dir: Path, extra: str = "mine", **settings: Any) -> None:
        super().__init__(Pbmc(), data_dir, **(PBMC | settings))
        self.extra = extra

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"extra": self.extra}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.extra = state_dict.get("extra", "none")


class Outer(L.LightningDataModule):
    """Holds ours, and keeps a state of its own."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__()
        self.data_dir = data_dir

    def train_dataloader(self) -> Any:
        return create_hvg_dataloader(self.data_dir, 32, seed=42)

    def state_dict(self) -> dict[str, Any]:
        return {"of": "its own"}


def make(folder: Path, **settings: Any) -> ScRNADataModule:
    return ScRNADataModule(Pbmc(), folder, **(PBMC | settings))


def fit(data: L.LightningDataModule, **settings: Any) -> list[str]:
    """The cells of a run; `saved` is where to keep a checkpoint of its fifth step."""
    model = Seeing()
    saved, ckpt_path = settings.pop("saved", None), settings.pop("ckpt_path", None)
    trainer = quiet_trainer(**(SHORT | settings), callbacks=[Save(saved)] if saved else [])
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    return model.seen["train"]


class Save(L.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == 5:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(("wrote", "reads"), [(make, Own), (Own, make), (Own, Own)])
def test_a_state_is_found_under_the_name_of_another_class(
    pbmc_dir: Path, tmp_path: Path, wrote: Any, reads: Any
) -> None:
    saved = tmp_path / "run.ckpt"
    whole = fit(wrote(pbmc_dir), saved=saved)
    data = reads(pbmc_dir)
    data.extra = "before"
    assert fit(data, ckpt_path=saved) == whole[5 * 32 :]
    restored = {(make, Own): "none", (Own, make): "before", (Own, Own): "mine"}
    assert data.extra == restored[wrote, reads]
    settings = torch.load(saved, weights_only=True)["datamodule_hyper_parameters"]
    assert settings.get("extra") == ("mine" if wrote is Own else None)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_a_checkpoint_without_a_place_is_warned_of(pbmc_dir: Path, tmp_path: Path) -> None:
    fit(Outer(pbmc_dir), saved=tmp_path / "run.ckpt")
    with pytest.warns(UserWarning, match=r"no place of a Own \(but states of \['Outer'\]\).*Go on"):
        fit(Own(pbmc_dir), ckpt_path=tmp_path / "run.ckpt")


class Fail(L.Callback):
    """Raises in one hook."""

    def __init__(self, hook: str) -> None:
        def fail(*_: Any, **__: Any) -> None:
            setattr(self, hook, lambda *_, **__: None)  # once
            raise RuntimeError("as asked")

        setattr(self, hook, fail)


@pytest.mark.parametrize("is_same", [True, False], ids=["same trainer", "new trainer"])
@pytest.mark.parametrize("hook", ["setup", "on_load_checkpoint", "on_fit_start", "on_train_start"])
def test_nothing_of_a_resume_that_failed_is_in_the_next_run(
    pbmc_dir: Path, tmp_path: Path, hook: str, *, is_same: bool
) -> None:
    data, saved = make(pbmc_dir), tmp_path / "run.ckpt"
    limits = {"max_epochs": -1, "max_steps": 14} if hook == "on_train_start" else {}
    whole = fit(make(pbmc_dir), saved=saved, **limits)
    trainer = quiet_trainer(**(SHORT | limits), callbacks=[Fail(hook)])
    with pytest.raises(RuntimeError, match="as asked"):
        trainer.fit(Seeing(), datamodule=data, ckpt_path=saved)
    model = Seeing()
    (trainer if is_same else quiet_trainer(**(SHORT | limits))).fit(model, datamodule=data)
    assert model.seen["train"] == whole


def test_nor_of_one_that_was_refused(pbmc_dir: Path, tmp_path: Path) -> None:
    saved = tmp_path / "run.ckpt"
    fit(make(pbmc_dir), saved=saved, limit_train_batches=8)
    data, trainer = make(pbmc_dir, shuffle_seed=1), quiet_trainer(**SHORT)
    with pytest.raises(ValueError, match="another order of cells"):
        trainer.fit(Seeing(), datamodule=data, ckpt_path=saved)
    model = Seeing()
    trainer.fit(model, datamodule=data)
    assert model.seen["train"] == fit(make(pbmc_dir, shuffle_seed=1))


@pytest.mark.parametrize(("mode", "found"), [("power", 569), ("binsearch", 540)])
def test_the_search_for_a_batch_size_ends_with_the_cells_there_are(
    pbmc_dir: Path, tmp_path: Path, mode: str, found: int
) -> None:
    data = make(pbmc_dir)
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    assert Tuner(trainer).scale_batch_size(Seeing(), datamodule=data, mode=mode) == found
    assert data.batch_size == data.hparams["batch_size"] == found
    assert len(fit(data, max_epochs=1)) == found
    data.batch_size = 570  # by a user
    with pytest.raises(ValueError, match="batch_size=570 exceeds"):
        fit(data)


class Hooked(Seeing):
    """Writes down what its hooks are given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[str, type, torch.dtype]] = []

    def write(self, hook: str, batch: Any) -> None:
        self.given.append((hook, type(batch), batch[0].dtype))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.write("before", batch)
        return batch

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        self.write("transfer", batch)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.write("after", batch)
        return batch


@pytest.mark.filterwarnings("ignore:You have overridden `")
@pytest.mark.parametrize("tokenizer", [None, LogBinTokens()])
def test_a_modules_own_hooks_run_and_after_the_transfer_they_are_given_tokens(
    data_dir: Path, tokenizer: Any
) -> None:
    model = Hooked()
    settings = SHORT | {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 0}
    data = make(data_dir, tokenizer=tokenizer)
    quiet_trainer(**settings).fit(model, datamodule=data)
    if tokenizer is None:
        assert [hook for hook, *_ in model.given] == ["before", "transfer", "after"]
    else:
        assert model.given == [
            ("before", TokenBatch, torch.uint8),
            ("after", TokenBatch, torch.int64),
        ]
