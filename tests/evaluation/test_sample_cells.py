"""Cells are drawn while training goes on, and training is what it is without them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, Logger

from scdiff_data.callbacks import WeightEMA
from scdiff_data.diffusion import SampleCells


class Quiet(Logger):
    """A logger that notes what pictures it was given."""

    name = version = "quiet"

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[tuple[str, int]] = []

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, *args: Any, **kwargs: Any) -> None: ...


class LikeWandb(Quiet):
    def log_image(self, key: str, images: list[Any], step: int) -> None:
        assert [image.mode for image in images] == ["RGB"]
        self.pictures.append((key, step))


class LikeTensorBoard(Quiet):
    @property
    def experiment(self) -> Any:
        return SimpleNamespace(add_image=self.add_image)

    def add_image(self, key: str, image: Any, step: int, dataformats: str) -> None:
        assert (image.dtype, image.shape[2], dataformats) == (np.uint8, 3, "HWC")
        self.pictures.append((key, step))


def drawn_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_training_is_the_same_to_the_bit_and_generates_from_the_average(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    class Noisy(type(small_model())):  # type: ignore[misc]
        """Trains with the global random state, and generates with it and the weights at hand."""

        seen: list[float]

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch, batch_idx) * (1 + torch.rand(()) * 0.1)

        def generate(self, n_cells: int, *, steps: int) -> Any:
            assert not self.training
            torch.rand(3), np.random.rand(3)  # noqa: NPY002
            type(self).seen.append(float(next(self.parameters()).detach().double().sum()))
            return super().generate(n_cells, steps=steps)

    weights, averages = [], []
    for name, callbacks in (("with", [SampleCells(1, n_cells=10, steps=2)]), ("without", [])):
        Noisy.seen = []
        model = Noisy(**dict(small_model().hparams))
        torch.manual_seed(0)
        ema = WeightEMA(0.5)
        data = make_data(mixture.sample(178, seed=1), n_val=50)
        trainer = make_trainer(
            max_epochs=2, callbacks=[*callbacks, ema], default_root_dir=tmp_path / name
        )

        def note(*_: Any, ema: Any = ema, seen: list[float] = averages) -> None:
            average = next(ema._average_model.parameters()).detach()
            seen.append(float(average.double().sum()))

        ema.on_train_epoch_start = note
        trainer.fit(model, datamodule=data)
        note()
        weights.append([weight.clone() for weight in model.parameters()])
        if name == "with":
            assert Noisy.seen[0] == pytest.approx(averages[1], rel=1e-12)
            assert drawn_in(tmp_path / name) == [
                "samples/step_0000004.png",
                "samples/step_0000008.png",
            ]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert drawn_in(tmp_path / "without") == []


def test_pictures_go_to_the_loggers_that_take_some_else_to_a_folder(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    data = make_data(mixture.sample(178, seed=1), n_val=50)
    takes, board, csv = LikeWandb(), LikeTensorBoard(), CSVLogger(tmp_path, name="", version="logs")
    for loggers in ([takes, csv, board], [csv]):
        sample = SampleCells(None, every_n_train_steps=3, n_cells=10, steps=1)
        trainer = make_trainer(
            max_epochs=3,
            accumulate_grad_batches=2,
            callbacks=[sample],
            logger=loggers,
            log_every_n_steps=1,
        )
        trainer.fit(small_model(), datamodule=data)
    assert takes.pictures == board.pictures == [("generated cells", 3), ("generated cells", 6)]
    assert drawn_in(tmp_path) == ["logs/samples/step_0000003.png", "logs/samples/step_0000006.png"]


def test_few_validation_cells_leave_training_cells_to_compare_with(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    data = make_data(mixture.sample(137, seed=1), n_val=9)
    sample = SampleCells(1, n_cells=10, steps=1)
    make_trainer(max_epochs=1, callbacks=[sample], default_root_dir=tmp_path).fit(
        small_model(), datamodule=data
    )
    assert drawn_in(tmp_path) == ["samples/step_0000004.png"]


def test_what_it_cannot_do_is_said_before_training(make_trainer: Any) -> None:
    with pytest.raises(ValueError, match="BoringModel has no such method"):
        make_trainer(max_epochs=1, callbacks=[SampleCells()]).fit(BoringModel())
    with pytest.raises(ValueError, match="every_n_epochs must be at least 1"):
        SampleCells(0)
    with pytest.raises(ValueError, match="n_cells must be at least 10"):
        SampleCells(n_cells=2)
