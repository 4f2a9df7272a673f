"""Which cells are kept, and which files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class QualityFilter:
    """Which cells are kept, in the names and meanings of `scanpy.pp.filter_cells`.

    Parameters
    ----------
    min_genes, max_genes
        Fewest and most genes with a count above zero; None does not filter.
    min_counts
        Lowest total count; None does not filter.
    max_mito_pct
        Highest percentage of counts in mitochondrial genes; None does not filter.
    mito_genes
        Which genes these are: what their symbols begin with, or ids or symbols.
    min_pass_fraction, min_cells
        A file of whose cells a smaller fraction, or of which fewer, pass is left out.
    """

    min_genes: int | None = None
    min_counts: int | None = None
    max_genes: int | None = None
    max_mito_pct: float | None = None
    mito_genes: str | Sequence[str] = "MT-"
    min_pass_fraction: float = 0.0
    min_cells: int = 0

    @property
    def later_settings(self) -> list[Any]:
        """What older archives' fingerprints do not know; empty where it is as it was then."""
        mito = None if self.max_mito_pct is None else [self.max_mito_pct, self.mito_genes]
        found = [mito, self.min_pass_fraction, self.min_cells]
        return found if any(found) or mito is not None else []

    def __str__(self) -> str:
        texts = {
            f"at least {self.min_genes} genes": self.min_genes,
            f"at most {self.max_genes} genes": self.max_genes is not None,
            f"at least {self.min_counts} counts": self.min_counts,
            f"at most {self.max_mito_pct} % mitochondrial": self.max_mito_pct is not None,
            f"of files of which {self.min_pass_fraction:.0%} pass": self.min_pass_fraction,
            f"of files of which {self.min_cells} cells pass": self.min_cells,
        }
        return ", ".join(text for text, holds in texts.items() if holds) or "every cell"

    def explain_loss(self, n_passing: int, n_cells: int) -> str | None:
        """Why a file is left out, of which so many cells pass; None if it is not."""
        few = f"only {n_passing:,} of {n_cells:,} cells pass QC, fewer than"
        if n_passing < self.min_cells:
            return f"{few} min_cells={self.min_cells}"
        if n_passing < self.min_pass_fraction * n_cells:
            return f"{few} min_pass_fraction={self.min_pass_fraction}"
        return None

    def passes(
        self,
        n_genes: NDArray[np.int64],
        total_counts: NDArray[np.int64],
        mito_counts: NDArray[np.int64] | None = None,
    ) -> NDArray[np.bool_]:
        """Whether each cell is kept; `mito_counts` are needed for `max_mito_pct` alone."""
        keep = np.ones(len(n_genes), dtype=bool)
        if self.min_genes is not None:
            keep &= n_genes >= self.min_genes
        if self.min_counts is not None:
            keep &= total_counts >= self.min_counts
        if self.max_genes is not None:
            keep &= n_genes <= self.max_genes
        if self.max_mito_pct is not None and mito_counts is not None:
            keep &= 100 * mito_counts <= self.max_mito_pct * total_counts
        return keep
