"""A file of anyone's is opened: what is dangerous or damaged in it becomes one clear error.

Read `faults`, `texts`, `heaps`, `known_texts`, `source_file`.
"""

from scdiff_data.opening.faults import explain
from scdiff_data.opening.known_texts import KnownTexts
from scdiff_data.opening.source_file import (
    ALLOWANCE,
    LEAST_ALLOWANCE,
    SourceDataset,
    SourceFile,
    SourceGroup,
    check_allowance,
    open_hdf5,
    release,
)
from scdiff_data.opening.texts import decode_text, read_text, read_texts

__all__ = [
    "ALLOWANCE",
    "LEAST_ALLOWANCE",
    "KnownTexts",
    "SourceDataset",
    "SourceFile",
    "SourceGroup",
    "check_allowance",
    "decode_text",
    "explain",
    "open_hdf5",
    "read_text",
    "read_texts",
    "release",
]
