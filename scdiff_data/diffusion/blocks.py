"""What the network is made of: the condition, transformer blocks, and adaptive norms.

The *condition*, sequencing depth and labels such as the cell type, scales and shifts every
normalisation (adaptive LayerNorm, arXiv:2212.09748). So does the *evidence*, the sum of what all
unmasked genes say: what a cell is shows in many genes at once, and their sum says it from the first
layer on, which attention takes thousands of cells to learn.

Shapes: b cells of a batch, n tokens of the sequence, d width, h heads, l labels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Condition(nn.Module):
    """Depth, labels, of `n_categories` each, and evidence as one vector a cell."""

    log_depth_mean: Tensor
    log_depth_sd: Tensor

    def __init__(self, d_model: int, n_categories: Sequence[int]) -> None:
        super().__init__()
        # One category more, the first: a missing label.
        self.label_embeddings = nn.ModuleList(nn.Embedding(n + 1, d_model) for n in n_categories)
        self.depth_embedding = nn.Sequential(
            nn.Linear(1, d_model), nn.SiLU(), nn.Linear(d_model, d_model)
        )
        self.withheld_embedding = nn.Parameter(torch.zeros(d_model))
        self.evidence_norm = nn.LayerNorm(d_model, elementwise_affine=False)
        self.evidence = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model)
        )
        self.register_buffer("log_depth_mean", torch.tensor(0.0))
        self.register_buffer("log_depth_sd", torch.tensor(1.0))

    def scale_depth(self, log_depth_c: Tensor) -> None:
        """Take mean and spread of training cells' log(1 + total counts)."""
        self.log_depth_mean.copy_(log_depth_c.mean())
        self.log_depth_sd.copy_(log_depth_c.std(correction=0).clamp(min=1e-3))

    def forward(
        self,
        total_counts_b: Tensor,
        labels_bl: Tensor,
        evidence_bd: Tensor,
        unconditional_b: Tensor | None,
    ) -> Tensor:
        """The condition, [b, d]; depth and labels of `unconditional_b` are withheld."""
        depth_b = (total_counts_b.float().log1p() - self.log_depth_mean) / self.log_depth_sd
        given_bd: Tensor = self.depth_embedding(depth_b[:, None])
        for embedding, label_b in zip(self.label_embeddings, labels_bl.unbind(-1), strict=True):
            given_bd = given_bd + embedding(label_b + 1)
        if unconditional_b is not None:
            given_bd = torch.where(unconditional_b[:, None], self.withheld_embedding, given_bd)
        condition_bd: Tensor = given_bd + self.evidence(self.evidence_norm(evidence_bd))
        return condition_bd


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind an adaptive norm and added to its input."""

    def __init__(self, d_model: int, *, n_heads: int) -> None:
        super().__init__()
        self._n_heads = n_heads
        self.attention_norm = AdaptiveNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.attention_out = nn.Linear(d_model, d_model, bias=False)
        self.feedforward_norm = AdaptiveNorm(d_model)
        widest, back = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model, bias=False)
        self.feedforward = nn.Sequential(widest, nn.GELU(), back)
        # Each block starts as the identity, so that depth does not slow the first steps.
        nn.init.zeros_(self.attention_out.weight)
        nn.init.zeros_(back.weight)

    def forward(self, x_bnd: Tensor, condition_bd: Tensor) -> Tensor:
        """Update every token's state from all others'; the shape stays."""
        qkv_bne = self.qkv(self.attention_norm(x_bnd, condition_bd))
        q_bhnd, k_bhnd, v_bhnd = (
            part.unflatten(-1, (self._n_heads, -1)).transpose(1, 2) for part in qkv_bne.chunk(3, -1)
        )
        mixed_bhnd = F.scaled_dot_product_attention(q_bhnd, k_bhnd, v_bhnd)
        x_bnd = x_bnd + self.attention_out(mixed_bhnd.transpose(1, 2).flatten(-2))
        updated: Tensor = x_bnd + self.feedforward(self.feedforward_norm(x_bnd, condition_bd))
        return updated


class AdaptiveNorm(nn.Module):
    """LayerNorm whose scale and shift come from the condition; plain at the start."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 2 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x_bnd: Tensor, condition_bd: Tensor) -> Tensor:
        """Normalise over d, then scale and shift."""
        scale_bd, shift_bd = self.modulation(condition_bd)[:, None].chunk(2, -1)
        normed: Tensor = self.norm(x_bnd) * (1 + scale_bd) + shift_bd
        return normed
