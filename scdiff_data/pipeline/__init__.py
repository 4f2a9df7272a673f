"""All stages in order, from a recipe to a finished directory.

Read `split`, `settings`, `recipe`, `forecast`, `planning`, `cell_table`, `fill_archive`,
`assemble`, `stages`.
"""

from scdiff_data.pipeline.planning import Plan
from scdiff_data.pipeline.recipe import Recipe
from scdiff_data.pipeline.settings import PrepareOptions
from scdiff_data.pipeline.split import Split
from scdiff_data.pipeline.stages import choose_genes_again, convert_shards, plan, prepare

__all__ = [
    "Plan",
    "PrepareOptions",
    "Recipe",
    "Split",
    "choose_genes_again",
    "convert_shards",
    "plan",
    "prepare",
]
