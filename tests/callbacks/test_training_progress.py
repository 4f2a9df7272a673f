"""One bar for all of training, and one for what is asked for by itself."""

import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from scdiff_data.callbacks import TrainingProgress, training_progress
from scdiff_data.telling import Progress


class Model(BoringModel):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("train/loss", 1.5, prog_bar=True)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("val/loss", 2.5, prog_bar=True)
        return super().validation_step(batch, batch_idx)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each bar has shown at its end, without the time."""
    lines: list[str] = []

    class Kept(Progress):
        def __exit__(self, *error: object) -> None:
            super().__exit__(*error)
            text = re.sub(r"\d+:\d\d|[\d,.]+ batches/s|, (?=,)| left", "", f"{self._stage}: {self}")
            lines.append(", ".join(part for part in text.split(", ") if part.strip(", ")))

    monkeypatch.setattr(training_progress, "Progress", Kept)
    return lines


def make_trainer(folder: Path, **settings: Any) -> Trainer:
    known = {"limit_train_batches": 3, "limit_val_batches": 2, "limit_test_batches": 4}
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[TrainingProgress()],
        **known | settings,
    )


def test_training_has_one_bar_for_all_epochs_that_goes_on_where_a_checkpoint_left_it(
    tmp_path: Path, ended: list[str]
) -> None:
    trainer = make_trainer(tmp_path, max_epochs=2)
    trainer.fit(Model())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    make_trainer(tmp_path, max_epochs=3).fit(Model(), ckpt_path=tmp_path / "last.ckpt")
    assert ended == [
        "train: 6 of 6 batches, epoch 2 of 2, loss 1.5, val/loss 2.5",
        "train: 9 of 9 batches, epoch 3 of 3, loss 1.5, val/loss 2.5",
    ]


def test_steps_bound_the_bar_and_a_failure_ends_it(tmp_path: Path, ended: list[str]) -> None:
    make_trainer(tmp_path, max_steps=4, accumulate_grad_batches=2, max_epochs=9).fit(Model())
    assert ended[0].startswith("train: 6 of 6 batches")  # an epoch's last step takes what is left

    class Failing(Model):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                raise RuntimeError("as it may be")

    with pytest.raises(RuntimeError, match="as it may be"):
        make_trainer(tmp_path, max_epochs=2).fit(Failing())
    assert ended[1].startswith("train: 2 of 6 batches")


def test_what_is_asked_for_by_itself_has_a_bar(tmp_path: Path, ended: list[str]) -> None:
    trainer = make_trainer(tmp_path, limit_predict_batches=5)
    trainer.validate(Model(), verbose=False)
    trainer.test(Model(), verbose=False)
    trainer.predict(Model())
    shown = [line.partition(", ")[0] for line in ended]
    assert shown == [
        "validate: 2 of 2 batches",
        "test: 4 of 4 batches",
        "predict: 5 of 5 batches",
    ]
