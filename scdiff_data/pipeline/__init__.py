"""All stages in order, from a recipe to a finished directory.

Read `cell_table`, `verifying`, `beginning`, `make_archives`, `fill_elsewhere`, `fill_archive`,
`assemble`, `remaking`, `stages`.
"""

from scdiff_data.pipeline.remaking import choose_genes_again, convert_shards
from scdiff_data.pipeline.stages import plan, prepare
from scdiff_data.pipeline.verifying import check_data_dir, find_problems

__all__ = [
    "check_data_dir",
    "choose_genes_again",
    "convert_shards",
    "find_problems",
    "plan",
    "prepare",
]
