"""What the network is made of: the condition, transformer blocks, and adaptive norms.

The *condition*, sequencing depth and labels such as the cell type, scales and shifts every
normalisation (adaptive LayerNorm, arXiv:2212.09748). So does the *evidence*, the sum of what all
unmasked genes say: what a cell is shows in many genes at once, and their sum says it from the first
layer on, which attention takes thousands of cells to learn.

Shapes: b cells of a batch, n tokens of the sequence, d width, h heads, l labels, k what may be told
of a cell.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_KNOTS = 7
"""Depths that have weights of their own: -3 … 3 standard deviations of their logarithm."""


class Condition(nn.Module):
    """Depth, labels, of `n_categories` each, and evidence as one vector a cell."""

    log_depth_mean: Tensor
    log_depth_sd: Tensor

    def __init__(self, d_model: int, n_categories: Sequence[int]) -> None:
        super().__init__()
        self._n_categories = list(n_categories)
        self.told_embedding = nn.Embedding(N_KNOTS + sum(n_categories), d_model)
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

    def weigh(
        self, total_counts_b: Tensor, labels_bl: Tensor, unconditional_b: Tensor | None
    ) -> Tensor:
        """What is told of a cell as weights, [b, k]: of both knots beside its depth, and 1 a label.

        A missing label has none, nor has a cell of `unconditional_b`, whose condition is withheld.
        """
        log_depth_b1 = total_counts_b.float().log1p()[:, None]
        depth_b1 = ((log_depth_b1 - self.log_depth_mean) / self.log_depth_sd).clamp(-3, 3)
        knot_k = torch.linspace(-3, 3, N_KNOTS, device=depth_b1.device)
        weights = [(1 - (depth_b1 - knot_k).abs()).clamp(min=0)]
        for n, label_b in zip(self._n_categories, labels_bl.unbind(-1), strict=True):
            weights.append(F.one_hot(label_b + 1, n + 1)[:, 1:].float())
        weight_bk = torch.cat(weights, -1)
        if unconditional_b is not None:
            weight_bk = weight_bk.masked_fill(unconditional_b[:, None], 0.0)
        return weight_bk

    def forward(self, told_bk: Tensor, evidence_bd: Tensor) -> Tensor:
        """The condition, [b, d], of what `weigh` told."""
        given_bd = told_bk @ self.told_embedding.weight
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
