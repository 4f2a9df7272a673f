"""What a Trainer can be given beside any module: averaged weights, speed, an orderly stop.

`weight_ema`, `speed` and `stopping` stand alone.
"""

from scdiff_data.callbacks.speed import Speed
from scdiff_data.callbacks.stopping import StopCheckpoint, exit_when_told
from scdiff_data.callbacks.weight_ema import WeightEMA

__all__ = ["Speed", "StopCheckpoint", "WeightEMA", "exit_when_told"]
