"""The network: a cell that is partly hidden and its condition → logits of every gene's token.

Genes have no order, so there are no positions: an embedding of (gene, token) says which gene a
place holds and what is known of it. Of a masked gene there is nothing to say; one that is known to
be expressed, at an unknown level, says what its expressed tokens say on average. Neighbours on the
axis share a place of the transformer's sequence, a *patch*, whose state is the sum of its genes':
attention then costs (g / s)² and not g², and learns from the first steps on. Each gene reads its
logits off the cell's condition and its patch, through a gate of its own. The patch is silent at
first: what all genes share is learned in the first steps, and what attention adds on top of it.
What a label alone says of a gene has weights of its own: in the condition it is summed with the
evidence, which says the same once many genes are seen, and would say half where none is.

Shapes: b cells of a batch, g genes, v tokens, d width, l labels; p patches of s genes each.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scdiff_data.diffusion.blocks import Block, Condition

_MOST_TOLD = 128
"""Categories of a label that have weights for each gene: a few hundred would outweigh the rest."""


def check_sizes(**sizes: int) -> None:
    """Raise ValueError if a network cannot have these sizes."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    d_model, n_heads = sizes["d_model"], sizes["n_heads"]
    if d_model % n_heads:
        raise ValueError(
            f"d_model must be a multiple of n_heads, got {d_model} and {n_heads}: "
            f"take d_model={(d_model // n_heads + 1) * n_heads}"
        )


class Denoiser(nn.Module):
    """A pre-norm transformer over patches of genes.

    Parameters
    ----------
    n_genes, n_tokens
        Genes that there are, of which a cell may hold any; size of the vocabulary. The mask is
        token `n_tokens`, the one after it means "expressed": see `hide_tokens`.
    n_categories
        Number of categories of each label that conditions the model.
    d_model, n_layers, n_heads
        Width, a multiple of the number of attention heads; number of transformer blocks.
    patch_size
        Genes a patch.
    """

    log_marginal_gv: Tensor

    def __init__(
        self,
        n_genes: int,
        *,
        n_tokens: int,
        n_categories: Sequence[int] = (),
        d_model: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
        patch_size: int = 1,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, n_layers=n_layers, n_heads=n_heads, patch_size=patch_size)
        self.mask_id = n_tokens
        self.patch_size = patch_size
        # What a token means differs by gene: 3 counts of a rare one are not 3 of a common one. The
        # last row, of masked genes and of places beyond the last gene, stays 0.
        n_rows = n_genes * n_tokens
        self.gene_token_embedding = nn.Embedding(n_rows + 1, d_model, padding_idx=n_rows)
        self.condition = Condition(d_model, n_categories)
        self.blocks = nn.ModuleList(Block(d_model, n_heads=n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model, elementwise_affine=False)
        self.patch_gate = nn.Linear(d_model, d_model)
        self.gate_embedding = nn.Embedding(n_genes, d_model)
        self.head = nn.Linear(d_model, n_tokens, bias=False)
        self.head_bias = nn.Embedding(n_genes, n_tokens)
        # The first row, of a label that is missing or withheld, stays 0.
        n_told = [n if n <= _MOST_TOLD else 0 for n in n_categories]
        tables = (nn.Embedding(n + 1, n_genes * n_tokens, padding_idx=0) for n in n_told)
        self.label_biases = nn.ModuleList(tables)
        self.register_buffer("log_marginal_gv", torch.zeros(n_genes, n_tokens).log_softmax(-1))
        nn.init.normal_(self.gene_token_embedding.weight, std=0.1)
        nn.init.zeros_(self.gene_token_embedding.weight[-1])
        head = (self.head.weight, self.head_bias.weight, *self.label_biases.parameters())
        for silent in (*head, self.patch_gate.weight, self.patch_gate.bias):
            nn.init.zeros_(silent)

    def forward(
        self,
        tokens_bg: Tensor,
        *,
        total_counts_b: Tensor,
        labels_bl: Tensor,
        unconditional_b: Tensor | None = None,
        genes_bg: Tensor | None = None,
        read_bg: Tensor | None = None,
    ) -> Tensor:
        """Logits of p(token | what is seen of all genes, condition), [b, g, v].

        Of a gene that is known to be expressed, those of its tokens above 0; of a known token they
        mean nothing.

        Parameters
        ----------
        tokens_bg
            What is seen of them: int64 in 0 … `n_tokens` + 1.
        total_counts_b, labels_bl
            Whole-cell counts, over all genes and not only these; int64 category codes, -1 for a
            missing label; l may be 0.
        unconditional_b
            Bool: cells whose depth and labels are withheld, jointly.
        genes_bg
            Which gene each place holds, int64 in 0 … `n_genes` - 1, [b, g] or [1, g]; None: all
            genes, in their order.
        read_bg
            Bool: places whose logits alone are wanted, as [n, v] in their order; None: all.
        """
        (n_cells, n_genes), size = tokens_bg.shape, self.patch_size
        weight = self.gene_token_embedding.weight
        nothing = len(weight) - 1
        there_bg = torch.arange(n_genes, device=weight.device) if genes_bg is None else genes_bg
        is_masked_bg = tokens_bg == self.mask_id
        seen_bg = (~is_masked_bg).to(weight.dtype)
        table_gvd = weight[:-1].view(*self.log_marginal_gv.shape, -1)
        # In half precision, small differences of large sums would be lost.
        with torch.autocast("cuda" if weight.is_cuda else "cpu", enabled=False):
            p_gv = self.log_marginal_gv.exp()
            p_expressed_gv = F.pad(self.log_marginal_gv[:, 1:].softmax(-1), (1, 0))
            mean_gd, expressed_gd = (torch.stack([p_gv, p_expressed_gv], 1) @ table_gvd).unbind(1)
            if genes_bg is None:
                expected_bd = seen_bg @ mean_gd
            else:
                how: Any = {"mode": "sum", "per_sample_weights": seen_bg}
                expected_bd = F.embedding_bag(genes_bg.expand(n_cells, -1), mean_gd, **how)
        rows_bg = (there_bg * self.mask_id + tokens_bg).masked_fill(is_masked_bg, nothing)
        rows_bg = torch.where(tokens_bg > self.mask_id, len(weight) + there_bg, rows_bg)
        rows_bg = F.pad(rows_bg, (0, -n_genes % size), value=nothing).view(-1, size)
        said_rd = torch.cat([weight, expressed_gd])
        x_nd = F.embedding_bag(rows_bg, said_rd, mode="sum", padding_idx=nothing)
        x_bpd = x_nd.view(n_cells, -1, x_nd.shape[1])
        # What the genes say beyond what the marginals expect of them: else their mean, the same for
        # all cells, is most of the sum, and cell types are found late.
        condition_bd = self.condition(
            total_counts_b, labels_bl, x_bpd.sum(1) - expected_bd, unconditional_b
        )
        modulating_bd = F.silu(condition_bd)
        for block in self.blocks:
            x_bpd = block(x_bpd, modulating_bd)
        patch_gate_bd = self.patch_gate(modulating_bd)
        x_bpd = condition_bd[:, None] + patch_gate_bd[:, None] * self.norm(x_bpd)
        # Where all places are read, n is (b, g).
        cell_n, gene_n = torch.arange(n_cells, device=weight.device)[:, None], there_bg
        if read_bg is not None:
            cell_n, place_n = read_bg.nonzero(as_tuple=True)
            gene_n = there_bg.expand(n_cells, -1)[cell_n, place_n]
            x_nd = x_bpd[cell_n, place_n // size]
        elif genes_bg is not None:
            x_nd = x_bpd.repeat_interleave(size, 1)[:, :n_genes]
        if read_bg is None and genes_bg is None:
            logits_nv: Tensor = self._read(x_bpd, n_genes)
        else:
            logits_nv = self.head(x_nd * self.gate_embedding(gene_n)) + self.head_bias(gene_n)
        labels: Any = zip(self.label_biases, labels_bl.unbind(-1), strict=True)
        for table, code_b in labels:
            row_b = (code_b + 1) * (code_b < table.num_embeddings - 1)
            row_n = (row_b if unconditional_b is None else row_b * ~unconditional_b)[cell_n]
            table_nv = table.weight.view(-1, self.mask_id)
            biases_nv = F.embedding(row_n * len(self.log_marginal_gv) + gene_n, table_nv)
            logits_nv = logits_nv + biases_nv * (row_n > 0)[..., None]  # the first row stays 0
        return logits_nv

    def _read(self, x_bpd: Tensor, n_genes: int) -> Tensor:
        """Every gene's logits, off its patch: gates times head, so that no [b, g, d] is held."""
        size, d = self.patch_size, x_bpd.shape[-1]
        gate_gd = F.pad(self.gate_embedding.weight, (0, 0, 0, -n_genes % size))
        readout_pdsv = torch.einsum("psd,vd->pdsv", gate_gd.view(-1, size, d), self.head.weight)
        logits_bpe = torch.bmm(x_bpd.transpose(0, 1), readout_pdsv.flatten(2)).transpose(0, 1)
        logits_bgv = logits_bpe.reshape(len(x_bpd), -1, self.mask_id)
        return logits_bgv[:, :n_genes] + self.head_bias.weight

    @torch.no_grad()
    def start_at_marginals(self, log_marginal_gv: Tensor, *, log_depth_c: Tensor) -> None:
        """Make step 0 the per-gene marginal baseline, so that every gain is learned dependence.

        Takes training cells' log token frequencies, and their log(1 + total counts), which scale
        the depth input.
        """
        self.head_bias.weight.copy_(log_marginal_gv)
        self.log_marginal_gv.copy_(log_marginal_gv)
        self.condition.scale_depth(log_depth_c)


def count_flops(denoiser: Denoiser, n_genes: int) -> int:
    """FLOPs of one cell of `n_genes` places, forward; a training step takes three times as many."""
    d, v = denoiser.head.in_features, denoiser.mask_id
    n = -(-n_genes // denoiser.patch_size)
    # Of a block: projections and feed-forward, attention between patches, the norms' modulation.
    a_block = 24 * n * d**2 + 4 * n**2 * d + 8 * d**2
    return len(denoiser.blocks) * a_block + 2 * n_genes * d * (v + 1)  # readout, and evidence
