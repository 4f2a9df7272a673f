"""Which cells come when: orders of an epoch that are computed, and each rank's part of them.

Read `keyed_permutation`, `order`, `sampler`.
"""

from scdiff_data.sampling.order import WindowPermutation, divide_rows, find_distinct
from scdiff_data.sampling.sampler import CellSampler, check_shuffle

__all__ = [
    "CellSampler",
    "WindowPermutation",
    "check_shuffle",
    "divide_rows",
    "find_distinct",
]
