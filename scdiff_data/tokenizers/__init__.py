"""Counts to tokens and back.

Read `bins`, `ranks`, `stored_fit`.
"""

from scdiff_data.tokenizers.bins import (
    BinTokens,
    CountTokens,
    LogBinTokens,
    QuantileTokens,
    TokenBatch,
    Tokenizer,
)
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
    "TokenBatch",
    "Tokenizer",
    "describe_fit",
    "open_fit",
    "restore_fit",
    "store_fit",
]
