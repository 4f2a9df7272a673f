"""All stages in order, from a recipe to a finished directory.

Read `forecast`, `planning`, `cell_table`, `make_archives`, `fill_archive`, `assemble`, `stages`.
"""

from scdiff_data.pipeline.planning import Plan
from scdiff_data.pipeline.stages import choose_genes_again, convert_shards, plan, prepare

__all__ = [
    "Plan",
    "choose_genes_again",
    "convert_shards",
    "plan",
    "prepare",
]
