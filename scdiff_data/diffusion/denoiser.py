"""The network: a masked cell and its condition → logits of every gene's token.

Genes have no order, so there are no positions: an embedding says which gene a slot is, others
which token it holds (or the mask). The *condition*, sequencing depth and labels such as the cell
type, scales and shifts every normalisation (adaptive LayerNorm, arXiv:2212.09748). So does the
*evidence*, the sum of all unmasked genes' embeddings: what a cell is shows in many genes at once,
and their sum says it from the first layer on, which attention takes thousands of cells to learn.

Shapes: b cells of a batch, g genes, v tokens, d width, h heads, l labels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Denoiser(nn.Module):
    """A pre-norm transformer over genes, dense attention: for panels up to a few hundred genes.

    Parameters
    ----------
    n_genes, n_tokens
        Length of the gene axis; size of the vocabulary. The mask is token `n_tokens`.
    n_categories
        Number of categories of each label that conditions the model.
    d_model, n_layers, n_heads
        Width, a multiple of the number of attention heads; number of transformer blocks.
    """

    first_row_g: Tensor
    log_depth_mean: Tensor
    log_depth_sd: Tensor

    def __init__(
        self,
        n_genes: int,
        *,
        n_tokens: int,
        n_categories: Sequence[int] = (),
        d_model: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
    ) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(
                f"d_model must be a multiple of n_heads, got {d_model} and {n_heads}: "
                f"take d_model={(d_model // n_heads + 1) * n_heads}"
            )
        self.mask_id = n_tokens
        self.gene_embedding = nn.Parameter(torch.empty(n_genes, d_model))
        self.token_embedding = nn.Embedding(n_tokens + 1, d_model)
        # What a token means differs by gene: 3 counts of a rare one are not 3 of a common one.
        self.gene_token_embedding = nn.Embedding(n_genes * (n_tokens + 1), d_model)
        # One category more, the first: a missing label.
        self.label_embeddings = nn.ModuleList(nn.Embedding(n + 1, d_model) for n in n_categories)
        self.depth_embedding = nn.Sequential(
            nn.Linear(1, d_model), nn.SiLU(), nn.Linear(d_model, d_model)
        )
        self.evidence_norm = nn.LayerNorm(d_model, elementwise_affine=False)
        self.evidence = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model)
        )
        self.no_condition = nn.Parameter(torch.zeros(d_model))
        self.blocks = nn.ModuleList(_Block(d_model, n_heads=n_heads) for _ in range(n_layers))
        self.norm = _AdaptiveNorm(d_model)
        self.head = nn.Linear(d_model, n_tokens, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(n_genes, n_tokens))
        self.register_buffer(
            "first_row_g", torch.arange(n_genes) * (n_tokens + 1), persistent=False
        )
        self.register_buffer("log_depth_mean", torch.tensor(0.0))
        self.register_buffer("log_depth_sd", torch.tensor(1.0))

        nn.init.normal_(self.gene_embedding, std=0.5)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.5)
        nn.init.zeros_(self.head.weight)

    @torch.no_grad()
    def start_at_marginals(self, log_marginal_gv: Tensor, *, log_depth_c: Tensor) -> None:
        """Make step 0 the per-gene marginal baseline, so that every gain is learned dependence.

        Takes training cells' log token frequencies, and their log(1 + total counts), which scale
        the depth input.
        """
        self.head_bias.copy_(log_marginal_gv)
        self.log_depth_mean.copy_(log_depth_c.mean())
        self.log_depth_sd.copy_(log_depth_c.std(correction=0).clamp(min=1e-3))

    def forward(
        self,
        tokens_bg: Tensor,
        *,
        total_counts_b: Tensor,
        labels_bl: Tensor,
        unconditional_b: Tensor | None = None,
    ) -> Tensor:
        """Logits of p(token | the tokens that are not masked, condition), [b, g, v].

        There is no logit of the mask, and those of unmasked genes mean nothing.

        Parameters
        ----------
        tokens_bg
            Int64 in 0 … `n_tokens`, the last being the mask.
        total_counts_b
            Whole-cell counts, over all genes and not only these.
        labels_bl
            Int64 category codes, -1 for a missing label; l may be 0.
        unconditional_b
            Bool: cells whose depth and labels are withheld, jointly.
        """
        condition_bd = self._condition(total_counts_b, labels_bl)
        if unconditional_b is not None:
            condition_bd = torch.where(unconditional_b[:, None], self.no_condition, condition_bd)
        x_bgd = self.gene_embedding + self.token_embedding(tokens_bg)
        x_bgd = x_bgd + self.gene_token_embedding(self.first_row_g + tokens_bg)
        seen_bg1 = (tokens_bg != self.mask_id)[..., None]
        evidence_bd = self.evidence_norm((x_bgd * seen_bg1).sum(1))
        condition_bd = F.silu(condition_bd + self.evidence(evidence_bd))
        for block in self.blocks:
            x_bgd = block(x_bgd, condition_bd)
        logits_bgv: Tensor = self.head(self.norm(x_bgd, condition_bd)) + self.head_bias
        return logits_bgv

    def _condition(self, total_counts_b: Tensor, labels_bl: Tensor) -> Tensor:
        depth_b = (total_counts_b.float().log1p() - self.log_depth_mean) / self.log_depth_sd
        condition_bd: Tensor = self.depth_embedding(depth_b[:, None])
        for embedding, label_b in zip(self.label_embeddings, labels_bl.unbind(-1), strict=True):
            condition_bd = condition_bd + embedding(label_b + 1)
        return condition_bd


class _Block(nn.Module):
    """Attention and a feed-forward layer, each behind an adaptive norm and added to its input."""

    def __init__(self, d_model: int, *, n_heads: int) -> None:
        super().__init__()
        self._n_heads = n_heads
        self.attention_norm = _AdaptiveNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.attention_out = nn.Linear(d_model, d_model, bias=False)
        self.feedforward_norm = _AdaptiveNorm(d_model)
        widest, back = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model, bias=False)
        self.feedforward = nn.Sequential(widest, nn.GELU(), back)
        # Each block starts as the identity, so that depth does not slow the first steps.
        nn.init.zeros_(self.attention_out.weight)
        nn.init.zeros_(back.weight)

    def forward(self, x_bgd: Tensor, condition_bd: Tensor) -> Tensor:
        """Update every gene's state from all others'; the shape stays."""
        qkv_bge = self.qkv(self.attention_norm(x_bgd, condition_bd))
        q_bhgd, k_bhgd, v_bhgd = (
            part.unflatten(-1, (self._n_heads, -1)).transpose(1, 2) for part in qkv_bge.chunk(3, -1)
        )
        mixed_bhgd = F.scaled_dot_product_attention(q_bhgd, k_bhgd, v_bhgd)
        x_bgd = x_bgd + self.attention_out(mixed_bhgd.transpose(1, 2).flatten(-2))
        updated: Tensor = x_bgd + self.feedforward(self.feedforward_norm(x_bgd, condition_bd))
        return updated


class _AdaptiveNorm(nn.Module):
    """LayerNorm whose scale and shift come from the condition; plain at the start."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 2 * d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x_bgd: Tensor, condition_bd: Tensor) -> Tensor:
        """Normalise over d, then scale and shift."""
        scale_bd, shift_bd = self.modulation(condition_bd)[:, None].chunk(2, -1)
        normed: Tensor = self.norm(x_bgd) * (1 + scale_bd) + shift_bd
        return normed
