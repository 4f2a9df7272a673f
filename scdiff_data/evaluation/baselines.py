"""What a cell's counts cost without a model: token frequencies of training cells.

Shapes: c held-out cells, t training cells, g genes, v tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.loading import CellBatch
from scdiff_data.tokenizers import BinTokens


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


def score_baselines(
    train: CellBatch, held_out: CellBatch, *, tokenizer: BinTokens, labels: Sequence[str]
) -> dict[str, float]:
    """What held-out counts cost without a model, nats a gene: token frequencies of training cells.

    Returns
    -------
    dict
        `marginal`: each gene's own frequencies; `given_depth`: among cells of like total counts;
        and of each label `given_{label}`: among cells of the same value. Frequencies of a group are
        shrunk towards the gene's own; by how much, and how many groups of depth, is chosen on the
        held-out cells themselves, in the baselines' favour.
    """
    tokens_tg, tokens_cg = (tokenizer.cpu().encode(c.expression).numpy() for c in (train, held_out))
    counts_tg, genes_g = np.asarray(train.expression), np.arange(tokens_tg.shape[1])
    p_gv = np.exp(count_marginals(counts_tg, tokenizer.edges.numpy(), len(genes_g)))
    p_cg = p_gv[genes_g, tokens_cg]
    within_tokens = -float(tokenizer.log_prob(held_out.expression).mean())

    def score(group_t: NDArray[Any], group_c: NDArray[Any]) -> float:
        n_groups = 1 + max(group_t.max(), group_c.max())
        n_tgv = np.zeros((n_groups, *p_gv.shape), np.int32)
        np.add.at(n_tgv, (group_t[:, None], genes_g, tokens_tg), 1)
        n_cg = n_tgv[group_c[:, None], genes_g, tokens_cg]
        size_c1 = np.bincount(group_t, minlength=n_groups)[group_c][:, None]
        scores = [-np.log((n_cg + m * p_cg) / (size_c1 + m)).mean() for m in (1, 3, 10, 30, 100)]
        return float(min(scores)) + within_tokens

    depth_t, depth_c = (np.asarray(cells.metadata["total_counts"]) for cells in (train, held_out))
    edges = [np.quantile(depth_t, np.arange(1, n) / n) for n in (2, 4, 8, 16, 32)]
    pairs = [(np.searchsorted(e, depth_t), np.searchsorted(e, depth_c)) for e in edges]
    scores = {
        "marginal": within_tokens - float(np.log(p_cg).mean()),
        "given_depth": min(score(*pair) for pair in pairs),
    }
    for label in labels:
        codes_t, codes_c = (np.asarray(cells.metadata[label]) + 1 for cells in (train, held_out))
        scores[f"given_{label}"] = score(codes_t, codes_c)
    return scores
