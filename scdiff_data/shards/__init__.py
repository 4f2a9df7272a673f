"""What training reads: shards, dense or compact, and how rows are gathered from them.

Read `formats`, `fallback`, `contents`, `writing`, `convert`, `loops`, `hints`, `columns`, `rows`.
"""

from scdiff_data.shards.contents import ShardGenes, check_shards
from scdiff_data.shards.convert import rewrite_shards
from scdiff_data.shards.fallback import count_replacements
from scdiff_data.shards.formats import (
    SHARD_FORMATS,
    ShardFormat,
    choose_format,
    count_bytes,
)
from scdiff_data.shards.rows import ShardRows
from scdiff_data.shards.writing import write_shards

__all__ = [
    "SHARD_FORMATS",
    "ShardFormat",
    "ShardGenes",
    "ShardRows",
    "check_shards",
    "choose_format",
    "count_bytes",
    "count_replacements",
    "rewrite_shards",
    "write_shards",
]
