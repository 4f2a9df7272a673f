"""What training reads: shards, written from the archives and gathered from memory maps.

Read `fallback`, `writing`, `rows`, `check`.
"""

from scdiff_data.shards.check import check_shards
from scdiff_data.shards.rows import ShardRows
from scdiff_data.shards.writing import write_shards

__all__ = ["ShardRows", "check_shards", "write_shards"]
