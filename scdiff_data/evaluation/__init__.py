"""How good a model is: likelihoods beside baselines, generated cells beside real ones.

Read `baselines`, `judgements`, `panels`, `verdicts`, `figure`, `comparison`, `report`,
`sample_cells`, `card`. What they measure with is the room before.
"""

from scdiff_data.evaluation.baselines import count_marginals, score_baselines
from scdiff_data.evaluation.card import describe_card, make_card, name_cells, read_card
from scdiff_data.evaluation.comparison import evaluate_model
from scdiff_data.evaluation.report import RunReport, describe_scores, describe_test
from scdiff_data.evaluation.sample_cells import SampleCells
from scdiff_data.measuring import compare_cells

__all__ = [
    "RunReport",
    "SampleCells",
    "compare_cells",
    "count_marginals",
    "describe_card",
    "describe_scores",
    "describe_test",
    "evaluate_model",
    "make_card",
    "name_cells",
    "read_card",
    "score_baselines",
]
