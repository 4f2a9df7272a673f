"""Trainers that say nothing and write nothing, unless told otherwise."""

from typing import Any

from lightning.pytorch import Trainer


def quiet_trainer(**settings: Any) -> Trainer:
    """One CPU, no logger, no checkpoints, no bar."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**(quiet | settings))
