"""What a model keeps of its data: names, sizes, and what training cells say before training.

Shapes: c training cells, g genes, v tokens.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from scdiff_data.evaluation import count_marginals
from scdiff_data.tokenizers import BinTokens

if TYPE_CHECKING:
    from scdiff_data.training import ScRNADataModule

N_STATISTICS = 20_000
"""Training cells that set the marginals: the first, which are mixed already."""


class Panel(TypedDict):
    """What a model keeps of its data, in plain values that a checkpoint can hold."""

    gene_ids: list[str]
    gene_symbols: list[str]
    n_genes: int  # genes that a place may hold
    gene_places: list[int] | None  # the genes' numbers among these; None: 0, 1, …
    token_edges: list[int]
    categories: dict[str, list[str]]  # label → names of its codes 0, 1, …, in the model's order


def read_panel(datamodule: "ScRNADataModule", *, labels: Sequence[str]) -> Panel:
    """The datamodule's panel, with those of its labels that the model is conditioned on.

    A tokenizer without inverse is refused, and a label that is not served.
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


def map_codes(
    found: Mapping[str, Sequence[str]], own: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """Of each label whose codes differ, the model's code of each of the data's, and -1 at the end.

    Takes the codes' names in the data and in the model; one that the model lacks is refused.
    """
    maps = {}
    for label, names in found.items():
        known = list(own.get(label, ()))
        if unknown := [name for name in names if name not in known]:
            raise ValueError(
                f"the model and the data differ in categories: the model knows no {label} "
                f"{unknown[:5]}; it knows {known[:20]}: take the data that the model was trained "
                "on, or train a new model"
            )
        if list(names) != known:
            maps[label] = torch.tensor([*(known.index(name) for name in names), -1])
    return maps


def find_genes(panel: Panel, metadata: Mapping[str, Any]) -> Any:
    """Which of the panel's genes each place of a batch holds, [b, g]; None where that is fixed."""
    if panel["gene_places"] is None:
        return None
    # A given gene that the data lack is -1 there, and here the last one.
    return metadata["gene_ids"] % panel["n_genes"]


def learn_statistics(
    datamodule: "ScRNADataModule", panel: Panel, *, labels: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """What training cells say before training.

    `count_marginals`, float64 [g, v]; each cell's total counts and label codes, int64 [c, 1 + l].
    """
    cells = datamodule.train_dataset[:N_STATISTICS]
    counts_cg, edges_v = np.asarray(cells.expression), np.asarray(panel["token_edges"])
    genes_cg = find_genes(panel, cells.metadata)
    log_marginal_gv = count_marginals(counts_cg, edges_v, panel["n_genes"], genes_cg)
    columns = [np.asarray(cells.metadata[name]) for name in ("total_counts", *labels)]
    known_cl = np.stack(columns, -1).astype(np.int64)
    return torch.from_numpy(log_marginal_gv), torch.from_numpy(known_cl)
