"""Which cells come when: orders of an epoch that are computed, and each rank's part of them.

Read `keyed_permutation`, `order`, `ranks`, `sampler`, `adoption`.
"""

from scdiff_data.sampling.adoption import UndividedSampler, adopt_sampler
from scdiff_data.sampling.order import WindowPermutation, divide_rows, find_distinct
from scdiff_data.sampling.ranks import check_ranks
from scdiff_data.sampling.sampler import CellSampler, check_shuffle, compare_orders

__all__ = [
    "CellSampler",
    "UndividedSampler",
    "WindowPermutation",
    "adopt_sampler",
    "check_ranks",
    "check_shuffle",
    "compare_orders",
    "divide_rows",
    "find_distinct",
]
