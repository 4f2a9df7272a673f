"""Genes that readers look for in a choice: mitochondrial ones, and house-keeping ones.

Cells that express many of the first are often dying; the second vary little between cell types. A
choice that has many of either follows something else than the types of cells.
"""

import numpy as np
from numpy.typing import NDArray

from scdiff_data.reading import GeneAxis

MITOCHONDRIAL = "MT-"
"""What the symbols of mitochondrial genes begin with, in any case: human `MT-ND1`, mouse `mt-Nd1`.
"""

MITOCHONDRIAL_IDS = frozenset(
    f"ENSG{number:011d}"
    for number in (
        *(198695, 198712, 198727, 198763, 198786, 198804, 198840),
        *(198886, 198888, 198899, 198938, 212907, 228253),
    )
)
"""Ensembl's ids of the 13 human mitochondrial genes that code for proteins."""

HOUSE_KEEPING = {
    "C1orf43": "ENSG00000143612",
    "CHMP2A": "ENSG00000130724",
    "EMC7": "ENSG00000134153",
    "GPI": "ENSG00000105220",
    "PSMB2": "ENSG00000126067",
    "PSMB4": "ENSG00000159377",
    "RAB7A": "ENSG00000075785",
    "REEP5": "ENSG00000129625",
    "SNRPD3": "ENSG00000100028",
    "VCP": "ENSG00000165280",
    "VPS29": "ENSG00000111237",
}
"""The eleven genes most evenly expressed across human tissues, and Ensembl's ids of them; other
species' go by the same symbols. Eisenberg and Levanon, Trends in Genetics 29:569, 2013,
doi:10.1016/j.tig.2013.05.010."""


def mark_genes(axis: GeneAxis) -> dict[str, NDArray[np.bool_]]:
    """Which genes are `mitochondrial`, and which `house-keeping`: by symbol or id, bool [n_genes].

    Ids are human; of other species, a gene is known by its symbol alone.
    """
    symbols = [symbol.upper() for symbol in axis.symbols]
    names = {symbol.upper() for symbol in HOUSE_KEEPING}
    known = {
        "mitochondrial": [
            symbol.startswith(MITOCHONDRIAL) or gene in MITOCHONDRIAL_IDS
            for symbol, gene in zip(symbols, axis.ids, strict=True)
        ],
        "house-keeping": [
            symbol in names or gene in HOUSE_KEEPING.values()
            for symbol, gene in zip(symbols, axis.ids, strict=True)
        ],
    }
    return {name: np.array(is_marked, dtype=bool) for name, is_marked in known.items()}
