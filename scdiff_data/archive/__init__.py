"""An experiment becomes a file: int16 CSR counts of all genes over one gene axis.

Read `cell_totals`, `file`, `transpose`, `word_order`, `writing`, `convert`, `obs`, `gathering`,
`rows`.
"""

from scdiff_data.archive.cell_totals import QualityFilter
from scdiff_data.archive.convert import ArchiveReport, write_archive, write_archives
from scdiff_data.archive.file import CsrRows, count_rows, map_matrix, read_in_order
from scdiff_data.archive.obs import LabelSurvey, ObsReader, check_ids, read_label
from scdiff_data.archive.rows import ArchiveRows, OtherTotal

__all__ = [
    "ArchiveReport",
    "ArchiveRows",
    "CsrRows",
    "LabelSurvey",
    "ObsReader",
    "OtherTotal",
    "QualityFilter",
    "check_ids",
    "count_rows",
    "map_matrix",
    "read_in_order",
    "read_label",
    "write_archive",
    "write_archives",
]
