"""What a Trainer can be given beside any module: averaged weights, speed, an orderly stop.

`weight_ema`, `speed` and `training_progress` stand alone. `last_step` (what an exception leaves),
`other_ranks` (no rank lives on alone) and `requeueing` (Slurm's) are parts of `stopping`.
`run_folder` finds a run again, and says why a checkpoint cannot be read.
"""

from scdiff_data.callbacks.run_folder import explain_unreadable, find_checkpoint
from scdiff_data.callbacks.speed import Speed
from scdiff_data.callbacks.stopping import StopCheckpoint, exit_when_told
from scdiff_data.callbacks.training_progress import TrainingProgress
from scdiff_data.callbacks.weight_ema import WeightEMA

__all__ = [
    "Speed",
    "StopCheckpoint",
    "TrainingProgress",
    "WeightEMA",
    "exit_when_told",
    "explain_unreadable",
    "find_checkpoint",
]
