"""What a model keeps of its data: names, sizes, and what training cells say before training.

Shapes: c training cells, g genes, v tokens.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from scdiff_data.tokenizers import BinTokens

if TYPE_CHECKING:
    from scdiff_data.datamodule import ScRNADataModule


class Panel(TypedDict):
    """What a model keeps of its data, in plain values that a checkpoint can hold."""

    gene_ids: list[str]
    gene_symbols: list[str]
    token_edges: list[int]
    categories: dict[str, list[str]]  # label → names of its codes 0, 1, …, in the model's order


def read_panel(datamodule: "ScRNADataModule", *, labels: Sequence[str]) -> Panel:
    """The datamodule's panel, with those of its labels that the model is conditioned on.

    Raises
    ------
    ValueError
        If the datamodule's tokenizer has no inverse, or it does not serve a label.
    """
    tokenizer = datamodule.tokenizer
    if not isinstance(tokenizer, BinTokens):
        raise ValueError(
            "MaskedDiffusion needs a tokenizer with one token a gene and an inverse (CountTokens, "
            f"LogBinTokens or QuantileTokens), got {type(tokenizer).__name__}: set the "
            "datamodule's tokenizer, e.g. data/tokenizer=logbin"
        )
    missing = [label for label in labels if label not in datamodule.categories]
    if missing:
        raise ValueError(
            f"the datamodule serves no label {', '.join(missing)}; it serves "
            f"{list(datamodule.categories)}: ask for it in the datamodule's labels"
        )
    return {
        "gene_ids": [str(gene) for gene in datamodule.gene_ids],
        "gene_symbols": [str(gene) for gene in datamodule.gene_symbols],
        "token_edges": tokenizer.edges.tolist(),
        "categories": {label: [str(c) for c in datamodule.categories[label]] for label in labels},
    }


def count_marginals(
    counts_cg: NDArray[np.int16], edges_v: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Log of each gene's token frequencies over training cells, [g, v], smoothed.

    One pseudo-cell a gene, of all genes' frequencies and a little of everything, keeps tokens that
    a gene never showed possible, at a cost that suits their rarity.
    """
    frequency_gv = np.empty((counts_cg.shape[1], len(edges_v)))
    for gene, counts_c in enumerate(counts_cg.T):
        tokens_c = np.searchsorted(edges_v, counts_c, side="right") - 1
        frequency_gv[gene] = np.bincount(tokens_c, minlength=len(edges_v))
    pseudo_v = frequency_gv.sum(0) / frequency_gv.sum() + 1e-6
    frequency_gv = (frequency_gv + pseudo_v) / (len(counts_cg) + pseudo_v.sum())
    return np.asarray(np.log(frequency_gv))
