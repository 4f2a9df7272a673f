"""What Lightning takes: the DataModule, exact resuming, an optimizer, callbacks.

Read `prepared`, `fit_data`, `resume`, `token_batches`, `datamodule`; `optimizer`, `weight_ema`,
`speed` and `stopping` stand alone.
"""

from scdiff_data.training.datamodule import ScRNADataModule
from scdiff_data.training.optimizer import make_optimizer
from scdiff_data.training.speed import Speed
from scdiff_data.training.stopping import StopCheckpoint, exit_when_told
from scdiff_data.training.weight_ema import WeightEMA

__all__ = [
    "ScRNADataModule",
    "Speed",
    "StopCheckpoint",
    "WeightEMA",
    "exit_when_told",
    "make_optimizer",
]
