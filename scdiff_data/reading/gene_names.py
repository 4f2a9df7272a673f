"""How files name their genes, and one axis out of the names of many files."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from scdiff_data.errors import CountError
from scdiff_data.reading.gene_axis import SYMBOL_COLUMNS, GeneAxis, strip_versions

_ID_COLUMNS = (
    *("gene_ids", "gene_id", "feature_id", "ensembl_id", "ensembl_ids", "ensembl_gene_id"),
    *("ensembl", "gene_stable_id"),
)
"""Columns of `var` that hold ids in common files."""

_ENSEMBL = re.compile(r"ENS[A-Z]*G\d+(\.\d+)?")
"""An Ensembl gene id."""

_FEWEST_SHARED = 0.1
"""Share of a file's genes that other files must know, or they are named in another way."""

_NO_NAMES = ("", "nan", "None", "<NA>")
"""Texts that stand where a name is missing."""

Names = Mapping[str, Sequence[str]]
"""Every way in which a file names its genes: `index`, and columns of `var`."""


def name_genes(var: pd.DataFrame, file: str, gene_ids: str | None = None) -> dict[str, list[str]]:
    """Every way in which a file names its genes, the one that counts as its own first.

    Parameters
    ----------
    var
        The file's genes.
    file
        Its name, for the errors.
    gene_ids
        Column that counts as the index; None takes the index itself.

    Raises
    ------
    CountError
        If there is no such column, or the index holds the numbers of the rows.
    """
    columns = {
        str(name): ["" if pd.isna(text) else str(text).strip() for text in var[name]]
        for name in var.columns
        if name in (*_ID_COLUMNS, *SYMBOL_COLUMNS, gene_ids)
    }
    if gene_ids is not None:
        if gene_ids not in columns:
            raise CountError(
                f"{file}: gene_ids={gene_ids} names no column of var that holds ids; it has "
                f"{list(map(str, var.columns))}"
            )
        index = columns.pop(gene_ids)
    else:
        index = [str(name).strip() for name in var.index]
        if index and index == list(map(str, range(len(index)))):
            raise CountError(f"{file} names its genes by the numbers of their rows, {_help(var)}")
    if unnamed := sum(name in _NO_NAMES for name in index):
        place = "the index of var" if gene_ids is None else f"the column {gene_ids} of var"
        raise CountError(f"{file} has {unnamed} genes without a name in {place}: name or drop them")
    return {"index": index} | {
        name: names
        for name, names in columns.items()
        if all(name not in _NO_NAMES for name in names)
    }


def _help(var: pd.DataFrame) -> str:
    known = [name for name in (*_ID_COLUMNS, *SYMBOL_COLUMNS) if name in var]
    texts = [str(n) for n in var if not pd.api.types.is_numeric_dtype(var[n]) and var[n].is_unique]
    if known or texts:
        column = (known or texts)[0]
        return f"and its column {column} holds ids: set source.gene_ids={column}"
    return "and no column of var holds ids: write their names to var_names"


def merge_axes(files: Mapping[str, Names], *, take_all: bool) -> GeneAxis:
    """One gene axis, ordered by id, from the genes of many files.

    Files may name them by Ensembl ids or by symbols, in the index or in columns: of the two, the
    one that all files have is taken, ids where both are.

    Parameters
    ----------
    files
        Of each file, by its name, how it names its genes.
    take_all
        Whether genes that not all files have are taken, too.

    Raises
    ------
    ValueError
        If the files do not agree on names, or have no gene in common.
    """
    ids = {file: _find(names, ensembl=True) for file, names in files.items()}
    symbols = {file: _find(names, ensembl=False) for file, names in files.items()}
    chosen = next((c for c in (ids, symbols) if None not in c.values()), None)
    if chosen is None:
        sides = [
            next(
                f"{file} has {names[0]!r}"
                for file, names in own.items()
                if names and other[file] is None
            )
            for own, other in ((ids, symbols), (symbols, ids))
        ]
        raise ValueError(
            f"the files name their genes in two ways: {' and '.join(sides)}, and neither has the "
            "other's names beside its own: add a column gene_ids or gene_symbols to var, or set "
            "gene_axis=first or to a list of names, which leaves out the files of other names"
        )
    genes = {file: dict.fromkeys(strip_versions(names or [])) for file, names in chosen.items()}
    _check_agreement(genes)
    sets = [set(names) for names in genes.values() if names]
    found = sorted(set.union(*sets) if take_all else set.intersection(*sets)) if sets else []
    if not found:
        raise ValueError(f"{len(files)} files have no gene in common: set gene_axis=union")
    symbol_of: dict[str, str] = {}
    for file, names in files.items():
        own = next((names[c] for c in SYMBOL_COLUMNS if c in names), ())
        for gene, symbol in zip(strip_versions(chosen[file] or []), own, strict=False):
            symbol_of.setdefault(gene, symbol)
    return GeneAxis(tuple(found), tuple(symbol_of.get(gene, gene) for gene in found))


def _find(names: Names, *, ensembl: bool) -> list[str] | None:
    """The first of a file's ways to name genes that is by Ensembl ids, or that is not."""
    for found in names.values():
        n_ensembl = sum(_ENSEMBL.fullmatch(gene) is not None for gene in found)
        if not found or (2 * n_ensembl > len(found)) == ensembl:
            return list(found)
    return None


def _check_agreement(genes: Mapping[str, Mapping[str, None]]) -> None:
    """Refuse a file of whose genes the others know next to none."""
    n_files: dict[str, int] = {}
    for names in genes.values():
        for gene in names:
            n_files[gene] = n_files.get(gene, 0) + 1
    for file, names in genes.items():
        n_shared = sum(n_files[gene] > 1 for gene in names)
        if names and len(genes) > 1 and n_shared < _FEWEST_SHARED * len(names):
            other = next((o for o in genes if o != file and genes[o]), None)
            if other is None:
                continue
            raise ValueError(
                f"the files do not agree on genes: {file} shares {n_shared} of its {len(names)} "
                f"with the others; it has {next(iter(names))!r}, {other} has "
                f"{next(iter(genes[other]))!r}: name genes alike, leave the file out, or set "
                "gene_axis=first or to a list of names"
            )
