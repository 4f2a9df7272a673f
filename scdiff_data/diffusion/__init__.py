"""The demo model: masked discrete diffusion over gene tokens.

Reading order: `process` (which genes are masked, and the objective), `denoiser` (the network),
`panel` (what a model keeps of its data), `generate` (the sampler), `module` (what Lightning trains
and saves), `ema` (the averaged weights), `evaluate` (how good the cells are, and the run's report).
"""

from scdiff_data.diffusion.denoiser import Denoiser
from scdiff_data.diffusion.ema import WeightEMA
from scdiff_data.diffusion.evaluate import RunReport, compare_cells
from scdiff_data.diffusion.module import MaskedDiffusion

__all__ = ["Denoiser", "MaskedDiffusion", "RunReport", "WeightEMA", "compare_cells"]
