"""Counts to tokens and back.

Read `contract`, `bins`, `ranks`, `stored_fit`.
"""

from scdiff_data.tokenizers.bins import (
    BinTokens,
    CountTokens,
    LogBinTokens,
    QuantileTokens,
)
from scdiff_data.tokenizers.contract import Tokenizer, find_count_table
from scdiff_data.tokenizers.ranks import RankTokens
from scdiff_data.tokenizers.stored_fit import (
    FitData,
    describe_fit,
    open_fit,
    restore_fit,
    store_fit,
)

__all__ = [
    "BinTokens",
    "CountTokens",
    "FitData",
    "LogBinTokens",
    "QuantileTokens",
    "RankTokens",
    "Tokenizer",
    "describe_fit",
    "find_count_table",
    "open_fit",
    "restore_fit",
    "store_fit",
]
