"""The average of the weights over the steps: what validates, generates and is saved."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import AveragedModel


class WeightEMA(WeightAveraging):
    """Exponential moving average of the weights: the version that validates and is saved.

    Parameters
    ----------
    decay
        Final decay a step, in [0, 1); after n steps it is min(`decay`, (1 + n)/(10 + n)).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        # Averaging buffers would also average the tokenizer's whole-number tables.
        super().__init__(use_buffers=False)
        self._decay = decay
        self._is_swapped = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the model; Lightning's own would copy to the CPU, and warn that it cannot shard."""
        if stage == "fit":
            pl_module.configure_model()
            device = trainer.strategy.root_device
            self._average_model = AveragedModel(pl_module, device, avg_fn=self._average)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._is_swapped = self._average_model is not None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the weights themselves."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._is_swapped = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the average; until all callbacks are done, the weights are kept to be saved."""
        if not self._is_swapped:
            self.on_validation_epoch_start(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show it where no step was left to train, too."""
        self.on_train_end(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the average alone."""
        if self._is_swapped and stage == "fit":
            self.on_validation_epoch_end(trainer, pl_module)
            self._copy_average_to_current(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the weights as training had them, for those who save them now."""
        if self._is_swapped:
            self.on_validation_epoch_end(trainer, pl_module)
        elif self._average_model is not None:
            # A callback before this one may have failed at the end of a batch: its step counts.
            self.on_train_batch_end(trainer, pl_module, None, None, 0)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average and the weights, each by its name during a validation, too."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._is_swapped:
            average, current = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, current

    def _average(self, average: Tensor, current: Tensor, n_averaged: Tensor | int) -> Tensor:
        n = torch.as_tensor(n_averaged, dtype=average.dtype)
        return average.lerp(current, 1 - ((1 + n) / (10 + n)).clamp(max=self._decay))
