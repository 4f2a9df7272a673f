"""The network: a masked cell and its condition → logits of every gene's token.

Genes have no order, so there are no positions: embeddings say which gene a place holds, and which
token that gene has (or the mask). There are two networks of one signature:

    Denoiser         attention between all genes: for panels up to a few hundred
    PatchDenoiser    attention between groups of genes: for thousands

Shapes: b cells of a batch, g genes, v tokens, d width, l labels; p patches of s genes each.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scdiff_data.diffusion.blocks import AdaptiveNorm, Block, Condition


class Denoiser(nn.Module):
    """A pre-norm transformer whose sequence is the genes.

    Parameters
    ----------
    n_genes, n_tokens
        Genes that there are, of which a cell may hold any; size of the vocabulary. The mask is
        token `n_tokens`.
    n_categories
        Number of categories of each label that conditions the model.
    d_model, n_layers, n_heads
        Width, a multiple of the number of attention heads; number of transformer blocks.
    """

    gene_g: Tensor

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
        self.mask_id = n_tokens
        self.gene_embedding = nn.Embedding(n_genes, d_model)
        self.token_embedding = nn.Embedding(n_tokens + 1, d_model)
        # What a token means differs by gene: 3 counts of a rare one are not 3 of a common one.
        self.gene_token_embedding = nn.Embedding(n_genes * (n_tokens + 1), d_model)
        self.condition = Condition(d_model, n_categories)
        self.blocks = nn.ModuleList(Block(d_model, n_heads=n_heads) for _ in range(n_layers))
        self.norm = AdaptiveNorm(d_model)
        self.head = nn.Linear(d_model, n_tokens, bias=False)
        self.head_bias = nn.Embedding(n_genes, n_tokens)
        self.register_buffer("gene_g", torch.arange(n_genes), persistent=False)
        for embedding in (self.gene_embedding, self.token_embedding, self.gene_token_embedding):
            nn.init.normal_(embedding.weight, std=0.5)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head_bias.weight)

    def forward(
        self,
        tokens_bg: Tensor,
        *,
        total_counts_b: Tensor,
        labels_bl: Tensor,
        unconditional_b: Tensor | None = None,
        genes_bg: Tensor | None = None,
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
        genes_bg
            Which gene each place holds, int64 in 0 … `n_genes` - 1, [b, g] or [1, g]; None: all
            genes, in their order.
        """
        genes_bg = self.gene_g[None] if genes_bg is None else genes_bg
        x_bgd = self.gene_embedding(genes_bg) + self.token_embedding(tokens_bg)
        rows_bg = genes_bg * (self.mask_id + 1) + tokens_bg
        x_bgd = x_bgd + self.gene_token_embedding(rows_bg)
        seen_bg1 = (tokens_bg != self.mask_id)[..., None]
        evidence_bd = (x_bgd * seen_bg1).sum(1)
        condition_bd = self.condition(total_counts_b, labels_bl, evidence_bd, unconditional_b)
        for block in self.blocks:
            x_bgd = block(x_bgd, condition_bd)
        logits_bgv: Tensor = self.head(self.norm(x_bgd, condition_bd)) + self.head_bias(genes_bg)
        return logits_bgv


class PatchDenoiser(nn.Module):
    """A pre-norm transformer whose sequence is groups of genes, and their evidence.

    A patch's token is the sum of its genes' embeddings; each gene reads its logits off its patch.
    Attention then costs (g / s)², not g², and learns from the first steps on.

    Parameters
    ----------
    n_genes, n_tokens, n_categories, d_model, n_layers, n_heads
        As `Denoiser`.
    patch_size
        Genes a patch, neighbours on the axis.
    """

    first_row_g: Tensor

    def __init__(
        self,
        n_genes: int,
        *,
        n_tokens: int,
        n_categories: Sequence[int] = (),
        d_model: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
        patch_size: int = 50,
    ) -> None:
        super().__init__()
        self.mask_id, self._patch_size = n_tokens, patch_size
        n_patches = -(-n_genes // patch_size)
        self._n_missing = n_patches * patch_size - n_genes  # places of the last patch
        n_places = n_patches * patch_size
        self.gene_token_embedding = nn.Embedding(n_places * (n_tokens + 1), d_model)
        self.patch_embedding = nn.Embedding(n_patches, d_model)
        self.condition = Condition(d_model, n_categories)
        self.blocks = nn.ModuleList(Block(d_model, n_heads=n_heads) for _ in range(n_layers))
        self.norm = AdaptiveNorm(d_model)
        self.readout = nn.Parameter(torch.zeros(n_patches, d_model, patch_size * n_tokens))
        self.head_bias = nn.Embedding(n_genes, n_tokens)
        first_row_g = torch.arange(n_places) * (n_tokens + 1)
        self.register_buffer("first_row_g", first_row_g, persistent=False)
        nn.init.normal_(self.gene_token_embedding.weight, std=0.1)
        nn.init.normal_(self.patch_embedding.weight, std=0.5)
        nn.init.zeros_(self.head_bias.weight)

    def forward(
        self,
        tokens_bg: Tensor,
        *,
        total_counts_b: Tensor,
        labels_bl: Tensor,
        unconditional_b: Tensor | None = None,
        genes_bg: None = None,
    ) -> Tensor:
        """Logits of p(token | the tokens that are not masked, condition), as `Denoiser`.

        Which gene a place holds is fixed, so there are no `genes_bg`.
        """
        del genes_bg
        n_cells, n_genes = tokens_bg.shape
        padded_bg = F.pad(tokens_bg, (0, self._n_missing), value=self.mask_id)
        rows_bg, weight = self.first_row_g + padded_bg, self.gene_token_embedding.weight
        seen_bg = (padded_bg != self.mask_id).to(weight.dtype)
        evidence_bd = F.embedding_bag(rows_bg, weight, per_sample_weights=seen_bg, mode="sum")
        condition_bd = self.condition(total_counts_b, labels_bl, evidence_bd, unconditional_b)
        x_nd = F.embedding_bag(rows_bg.view(-1, self._patch_size), weight, mode="sum")
        x_bpd = x_nd.view(n_cells, -1, x_nd.shape[1]) + self.patch_embedding.weight
        for block in self.blocks:
            x_bpd = block(x_bpd, condition_bd)
        x_pbd = self.norm(x_bpd, condition_bd).transpose(0, 1)
        logits_bpe = torch.bmm(x_pbd, self.readout).transpose(0, 1)
        logits_bgv = logits_bpe.reshape(n_cells, -1, self.mask_id)
        return logits_bgv[:, :n_genes] + self.head_bias.weight


def make_denoiser(n_genes: int, *, patch_size: int | None, **size: Any) -> Denoiser | PatchDenoiser:
    """The network of that size: of patches, or of genes if `patch_size` is None."""
    if patch_size is None:
        return Denoiser(n_genes, **size)
    if patch_size < 1:
        raise ValueError(f"patch_size must be at least 1 or null, got {patch_size}")
    return PatchDenoiser(n_genes, **size, patch_size=patch_size)


@torch.no_grad()
def start_at_marginals(
    denoiser: Denoiser | PatchDenoiser, log_marginal_gv: Tensor, *, log_depth_c: Tensor
) -> None:
    """Make step 0 the per-gene marginal baseline, so that every gain is learned dependence.

    Takes training cells' log token frequencies, and their log(1 + total counts), which scale the
    depth input.
    """
    denoiser.head_bias.weight.copy_(log_marginal_gv)
    denoiser.condition.scale_depth(log_depth_c)
