"""Which genes training sees: sums that merge, rankings, the choice.

Read `named`, `sums`, `statistics`, `ranking`, `choice`, `marked`, `figure`.
"""

from scdiff_data.genes.choice import GeneChoice, GeneSettings, choose_genes
from scdiff_data.genes.figure import plot_hvgs
from scdiff_data.genes.named import NamedGenes
from scdiff_data.genes.ranking import FLAVORS
from scdiff_data.genes.statistics import TrainingGenes, key_of, sum_elsewhere, write_statistics
from scdiff_data.genes.sums import sum_genes

__all__ = [
    "FLAVORS",
    "GeneChoice",
    "GeneSettings",
    "NamedGenes",
    "TrainingGenes",
    "choose_genes",
    "key_of",
    "plot_hvgs",
    "sum_elsewhere",
    "sum_genes",
    "write_statistics",
]
