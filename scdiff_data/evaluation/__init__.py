"""How good a model is: likelihoods beside baselines, generated cells beside real ones.

Read `baselines`, `metrics`, `panels`, `figure`, `comparison`, `report`,
`sample_cells`.
"""

from scdiff_data.evaluation.baselines import count_marginals, score_baselines
from scdiff_data.evaluation.comparison import evaluate_model
from scdiff_data.evaluation.metrics import compare_cells
from scdiff_data.evaluation.report import RunReport, describe_scores, describe_test
from scdiff_data.evaluation.sample_cells import SampleCells

__all__ = [
    "RunReport",
    "SampleCells",
    "compare_cells",
    "count_marginals",
    "describe_scores",
    "describe_test",
    "evaluate_model",
    "score_baselines",
]
