"""What a model keeps of its data: names, sizes, and what training cells say before training.

Shapes: c training cells, g genes, v tokens.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from scdiff_data.tokenizers import BinTokens

if TYPE_CHECKING:
    from scdiff_data.datamodule import ScRNADataModule


class Panel(TypedDict):
    """What a model keeps of its data, in plain values that a checkpoint can hold."""

    gene_ids: list[str]
    gene_symbols: list[str]
    n_genes: int  # genes that a place may hold
    gene_places: list[int] | None  # the genes' numbers among these; None: 0, 1, …
    token_edges: list[int]
    categories: dict[str, list[str]]  # label → names of its codes 0, 1, …, in the model's order


def read_panel(
    datamodule: "ScRNADataModule", *, labels: Sequence[str], patch_size: int | None
) -> Panel:
    """The datamodule's panel, with those of its labels that the model is conditioned on.

    Raises
    ------
    ValueError
        If the datamodule's tokenizer has no inverse, it does not serve a label, or the model groups
        genes by their places and these may hold any gene.
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
    gene_ids = [str(gene) for gene in datamodule.gene_ids]
    n_genes, gene_places = len(gene_ids), None
    if datamodule.gene_places is not None:  # places may hold any gene of the axis, or one it lacks
        if patch_size is not None:
            raise ValueError(
                f"patch_size={patch_size} groups genes by their places, but the data were prepared "
                "with fallback_min_genes, so that a place may hold any gene: set patch_size=null, "
                "or prepare with fallback_min_genes=0"
            )
        n_genes = datamodule.n_reference_genes + 1
        gene_places = [int(place) % n_genes for place in datamodule.gene_places]
    return {
        "gene_ids": gene_ids,
        "gene_symbols": [str(gene) for gene in datamodule.gene_symbols],
        "n_genes": n_genes,
        "gene_places": gene_places,
        "token_edges": tokenizer.edges.tolist(),
        "categories": {label: [str(c) for c in datamodule.categories[label]] for label in labels},
    }


def find_genes(panel: Panel, metadata: Mapping[str, Any]) -> Any:
    """Which of the panel's genes each place of a batch holds, [b, g]; None where that is fixed."""
    if panel["gene_places"] is None:
        return None
    # A given gene that the data lack is -1 there, and here the last one.
    return metadata["gene_ids"] % panel["n_genes"]


def count_marginals(
    counts_cg: NDArray[np.int16],
    edges_v: NDArray[np.int64],
    n_genes: int,
    genes_cg: Any = None,
) -> NDArray[np.float64]:
    """Log of each gene's token frequencies over training cells, [n_genes, v], smoothed.

    One pseudo-cell a gene, of all genes' frequencies and a little of everything, keeps tokens that
    a gene never showed possible, at a cost that suits their rarity. `genes_cg` says which gene each
    place holds; None: gene g in place g.
    """
    frequency_gv = np.zeros((n_genes, len(edges_v)))
    for place, counts_c in enumerate(counts_cg.T):
        tokens_c = np.searchsorted(edges_v, counts_c, side="right") - 1
        genes_c = np.full(len(tokens_c), place) if genes_cg is None else genes_cg[:, place]
        np.add.at(frequency_gv, (genes_c, tokens_c), 1)
    pseudo_v = frequency_gv.sum(0) / frequency_gv.sum() + 1e-6
    n_cells_g1 = frequency_gv.sum(1, keepdims=True)
    return np.asarray(np.log((frequency_gv + pseudo_v) / (n_cells_g1 + pseudo_v.sum())))
