"""What is wanted, and how it is done: settings, checked before any work.

Read `split`, `settings`, `recipe`.
"""

from scdiff_data.recipes.recipe import Recipe
from scdiff_data.recipes.settings import CELL_COLUMNS, PrepareOptions, Stages
from scdiff_data.recipes.split import Split, check_sizes, check_values

__all__ = [
    "CELL_COLUMNS",
    "PrepareOptions",
    "Recipe",
    "Split",
    "Stages",
    "check_sizes",
    "check_values",
]
