"""The demo model: masked discrete diffusion over gene tokens.

Read `process` (which genes are masked, and the objective), `blocks` and `denoiser` (the network),
`panel` (what a model keeps of its data), `samplers` (the reverse process), `generate` (cells, and
imputed genes), `module` (what Lightning trains and saves).
"""

from scdiff_data.callbacks import Speed, StopCheckpoint, TrainingProgress, WeightEMA
from scdiff_data.diffusion.denoiser import Denoiser
from scdiff_data.diffusion.module import MaskedDiffusion
from scdiff_data.evaluation import RunReport, SampleCells

__all__ = [
    "Denoiser",
    "MaskedDiffusion",
    "RunReport",
    "SampleCells",
    "Speed",
    "StopCheckpoint",
    "TrainingProgress",
    "WeightEMA",
]
