"""A file of anyone's, as it is: its cells, its genes, and its counts in blocks of bounded size.

Read `frames`, `gene_axis`, `gene_names`, `counts_place`, `h5ad`, `values`, `source_matrix`,
`foreign`.
"""

from scdiff_data.reading.counts_place import check_place
from scdiff_data.reading.foreign import FileKind, convert_foreign, is_10x, tell_kind
from scdiff_data.reading.frames import Frame
from scdiff_data.reading.gene_axis import Alignment, GeneAxis, strip_versions
from scdiff_data.reading.gene_names import merge_axes
from scdiff_data.reading.h5ad import H5adFile, read_gene_axis
from scdiff_data.reading.source_matrix import SourceMatrix
from scdiff_data.reading.values import Block, Part

__all__ = [
    "Alignment",
    "Block",
    "FileKind",
    "Frame",
    "GeneAxis",
    "H5adFile",
    "Part",
    "SourceMatrix",
    "check_place",
    "convert_foreign",
    "is_10x",
    "merge_axes",
    "read_gene_axis",
    "strip_versions",
    "tell_kind",
]
