"""The demo model: masked discrete diffusion over gene tokens.

Reading order: `process` (which genes are masked, and the objective), `blocks` and `denoiser` (the
network), `panel` (what a model keeps of its data), `generate` (the sampler), `optimize` (how the
weights are learned), `module` (what Lightning trains and saves), `ema` (the averaged weights),
`evaluate` (how good the cells are, and the run's report).
"""

from scdiff_data.diffusion.denoiser import Denoiser, PatchDenoiser
from scdiff_data.diffusion.ema import WeightEMA
from scdiff_data.diffusion.evaluate import RunReport, compare_cells
from scdiff_data.diffusion.module import MaskedDiffusion

__all__ = [
    "Denoiser",
    "MaskedDiffusion",
    "PatchDenoiser",
    "RunReport",
    "WeightEMA",
    "compare_cells",
]
