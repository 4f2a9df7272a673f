"""Toy counts of cells that differ in depth and in two programs of genes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def draw_cells(n_cells: int, *, seed: int) -> NDArray[np.int64]:
    """Counts of 40 genes, [n_cells, 40]."""
    rng = np.random.default_rng(seed)
    profile = np.random.default_rng(0).gamma(0.5, 2.0, (2, 40))
    mixed = rng.beta(0.5, 0.5, (n_cells, 1))
    depth = rng.lognormal(0, 0.4, (n_cells, 1))
    counts: NDArray[Any] = rng.poisson(depth * (mixed * profile[0] + (1 - mixed) * profile[1]))
    return counts
