"""The gene axis that all experiments share, and the alignment of a file's genes to it."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from scdiff_data.base import digest, read_parquet, write_parquet
from scdiff_data.errors import ManifestError
from scdiff_data.opening import KnownTexts

logger = logging.getLogger(__name__)

_VERSIONED = re.compile(r"(ENS[A-Z]*[GTP]\d+)\.\d+")
"""An Ensembl id with its version."""

_UNUSUAL = re.compile(r"[.\s]")
"""What an id has if there is something to strip."""

SYMBOL_COLUMNS = (
    *("gene_symbols", "gene_symbol", "gene_name", "feature_name", "symbol", "gene_names"),
    *("gene_short_name", "symbols"),
)
"""Columns of `var` that hold symbols in common files; the first that is there counts."""


@dataclass(frozen=True)
class Alignment:
    """Where a file's genes go on the reference axis.

    Parameters
    ----------
    target
        For each gene of the file its place on the axis, or -1 if the axis has no such gene; int32.
    n_missing
        Genes of the axis that the file lacks; they are zeros.
    n_duplicates
        Genes of the file that share their place with an earlier one; their counts are summed.
    """

    target: NDArray[np.int32]
    n_missing: int
    n_duplicates: int

    @property
    def n_unknown(self) -> int:
        """Genes of the file that the axis lacks; their counts stay in the totals alone."""
        return int((self.target < 0).sum())


@dataclass(frozen=True)
class GeneAxis:
    """Gene ids, without version suffixes, and their symbols, in the order of the columns."""

    ids: tuple[str, ...]
    symbols: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_var(cls, var: pd.DataFrame) -> "GeneAxis":
        """The axis of an h5ad file's `var`; of genes with the same id the first stays."""
        ids = strip_versions(var.index.tolist())
        column = next((name for name in SYMBOL_COLUMNS if name in var), None)
        symbols = ids
        if column is not None:
            given = zip(var[column], ids, strict=True)
            symbols = [gene if pd.isna(text) else str(text) for text, gene in given]
        if len(set(ids)) == len(ids):
            return cls(tuple(ids), tuple(symbols))
        first = dict(zip(reversed(ids), reversed(symbols), strict=True))
        unique = list(dict.fromkeys(ids))
        return cls(tuple(unique), tuple(first[gene] for gene in unique))

    @classmethod
    def read(cls, path: Path) -> "GeneAxis":
        """Read what `write` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ManifestError
            If it is damaged.
        """
        table = read_parquet(path)
        names = ("gene_id", "gene_symbol")
        if not set(names) <= set(table.column_names):
            raise ManifestError.damaged(path, f"it has columns {table.column_names}")
        return cls(*(tuple(table[name].to_pylist()) for name in names))

    @classmethod
    def find(cls, path: Path) -> "GeneAxis | None":
        """Read what `write` wrote; None if it is not there, or damaged, and to be made again."""
        try:
            return cls.read(path)
        except FileNotFoundError:
            return None
        except ManifestError as error:
            logger.warning("%s; it is made again", error)
            return None

    def write(self, path: Path) -> None:
        """Write a Parquet table of `gene_id` and `gene_symbol`."""
        write_parquet(
            path, pa.table({"gene_id": list(self.ids), "gene_symbol": list(self.symbols)})
        )

    def matches(self, var: h5py.Group) -> bool:
        """Whether an h5ad file's `var`, not decoded yet, is this axis: in nearly every file it is.

        Saying no does not mean that it is another one.
        """
        symbols = next((name for name in SYMBOL_COLUMNS if name in var), None)
        stored = [var.get(str(var.attrs.get("_index"))), var.get(str(symbols))]
        return all(
            isinstance(column, h5py.Dataset) and known.are_in(column)
            for column, known in zip(stored, self._known, strict=True)
        )

    @cached_property
    def _known(self) -> tuple[KnownTexts, KnownTexts]:
        return KnownTexts(self.ids), KnownTexts(self.symbols)

    @cached_property
    def digest(self) -> str:
        """Fingerprint of ids and symbols in their order."""
        return digest([self.ids, self.symbols])

    @cached_property
    def _place(self) -> dict[str, int]:
        return {gene: place for place, gene in enumerate(self.ids)}

    def count_known(self, gene_ids: Sequence[str]) -> int:
        """How many of these genes are on this axis."""
        return sum(gene in self._place for gene in strip_versions(gene_ids))

    def align(self, gene_ids: Sequence[str]) -> Alignment:
        """Find every gene's place on this axis, by id, without version suffixes."""
        if gene_ids is self.ids:
            return Alignment(np.arange(len(self), dtype=np.int32), 0, 0)
        target = np.array(
            [self._place.get(gene, -1) for gene in strip_versions(gene_ids)], dtype=np.int32
        )
        known = target[target >= 0]
        n_distinct = len(np.unique(known))
        return Alignment(target, len(self) - n_distinct, len(known) - n_distinct)


def strip_versions(gene_ids: Sequence[str]) -> list[str]:
    """Ensembl ids without their version: `ENSG00000141510.18` becomes `ENSG00000141510`.

    Other names, such as the symbol `RP11-34P13.7`, stay as they are.
    """
    if not _UNUSUAL.search("\0".join(map(str, gene_ids))):  # saves looking at each
        return list(map(str, gene_ids))
    return [
        match[1] if "." in gene and (match := _VERSIONED.fullmatch(gene)) else gene
        for gene in (str(gene).strip() for gene in gene_ids)
    ]
