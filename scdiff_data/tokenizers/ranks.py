"""A cell as a list of its genes, the highest first: a gene's position carries its value.

Equal lists come from many cells, so there is no inverse.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class RankTokens(nn.Module):
    """A cell as the list of its expressed genes, the highest first (Geneformer, Theodoris 2023).

    Counts are divided by each gene's median over the training cells that express it (of counts
    scaled to 10,000 a cell), so that genes high in every cell do not lead every list. Token 0 is
    padding, token `i + 1` gene `i`. There is no inverse.

    Parameters
    ----------
    max_length
        Longest list, in genes; further genes are dropped. None keeps all.
    """

    gene_scale: Tensor

    def __init__(self, max_length: int | None = None) -> None:
        super().__init__()
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1 or None, got {max_length}")
        self._max_length = max_length
        self.register_buffer("gene_scale", torch.ones(0))

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary: the padding and the genes."""
        return len(self.gene_scale) + 1

    def settings(self) -> dict[str, Any]:
        """The longest list."""
        return {"max_length": self._max_length}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the state that another of the same settings was fitted to.

        Raises
        ------
        ValueError
            If it is none.
        """
        scale = state["gene_scale"]
        if scale.ndim != 1 or not (scale.isfinite() & (scale > 0)).all():
            raise ValueError(f"this is no state of RankTokens: gene_scale is {scale}")
        self.gene_scale = scale.clone()

    def fit(self, counts: NDArray[np.int16], total_counts: NDArray[np.integer[Any]]) -> None:
        """Learn each gene's median; arguments as in `BinTokens.fit`."""
        scaled = counts / np.maximum(total_counts, 1)[:, None] * 1e4
        scaled[counts == 0] = np.nan
        expressed = (counts > 0).any(axis=0)
        medians = np.ones(counts.shape[1])
        medians[expressed] = np.nanmedian(scaled[:, expressed], axis=0)
        self.gene_scale = torch.from_numpy(1 / medians).float()

    def encode(self, counts: Tensor) -> Tensor:
        """Gene tokens, int64 [b, min(n_genes, max_length)], of counts [b, n_genes].

        Equal values keep the order of the genes.
        """
        if counts.shape[-1] != len(self.gene_scale):
            raise ValueError(
                f"RankTokens was fitted on {len(self.gene_scale)} genes, the batch has "
                f"{counts.shape[-1]}: call fit on training cells of this data set"
            )
        value, gene = (counts * self.gene_scale).sort(dim=-1, descending=True, stable=True)
        tokens = torch.where(value > 0, gene + 1, 0)
        return tokens[:, : self._max_length]
