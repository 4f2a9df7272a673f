"""Which genes fill the empty places of a cell, by hand."""

import numpy as np

MIN_GENES = 24
"""With the real cells' 64 HVGs, some cells express fewer and some do not."""


def fill_by_hand(
    counts: np.ndarray, chosen: list[int], min_genes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Slots and their genes, one cell after another, by the rule as the docstring has it."""
    expression, genes = counts[:, chosen].copy(), np.tile(chosen, (len(counts), 1))
    for cell, row in enumerate(counts):
        if (expression[cell] > 0).sum() >= min_genes:
            continue
        others = [g for g in range(len(row)) if row[g] > 0 and g not in chosen]
        others.sort(key=lambda g: (-row[g], g))
        empty = [slot for slot in range(len(chosen)) if expression[cell, slot] == 0]
        for slot, gene in zip(empty, others, strict=False):
            expression[cell, slot], genes[cell, slot] = row[gene], gene
    return expression, genes
