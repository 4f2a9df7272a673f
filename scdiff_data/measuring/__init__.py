"""How alike two samples of cells are, and how well predictions hold: figures for any model.

Read `metrics` (figures of a sample), `scale` (the same, where 0 is a baseline and 1 a replicate),
`effects` (log-fold changes between labels), `calibration` (probabilities beside frequencies).
"""

from scdiff_data.measuring.calibration import Reliability, measure_reliability, sum_by_probability
from scdiff_data.measuring.effects import Effects, compare_effects, measure_effects
from scdiff_data.measuring.metrics import (
    MIN_CELLS,
    Counts,
    TrainingCells,
    compare_cells,
    draw_mean_profiles,
    guess_types,
    shuffle_genes,
)
from scdiff_data.measuring.scale import (
    N_HALVINGS,
    compare_replicates,
    rescale_scores,
    take_medians,
)

__all__ = [
    "MIN_CELLS",
    "N_HALVINGS",
    "Counts",
    "Effects",
    "Reliability",
    "TrainingCells",
    "compare_cells",
    "compare_effects",
    "compare_replicates",
    "draw_mean_profiles",
    "guess_types",
    "measure_effects",
    "measure_reliability",
    "rescale_scores",
    "shuffle_genes",
    "sum_by_probability",
    "take_medians",
]
