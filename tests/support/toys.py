"""A small stand-in for the datamodule, and toy cells whose exact likelihood is known.

Shapes: c cells, g genes, v tokens, m mixture components.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from scdiff_data.loading.batches import TokenBatch
from scdiff_data.tokenizers.bins import BinTokens


class CellBatch(NamedTuple):
    expression: Tensor
    metadata: dict[str, Any]


class Cells:
    """Rows of a data set, as `HVGDataset` gives them."""

    def __init__(self, counts: NDArray[np.int16], first: int) -> None:
        self.counts = counts
        self.first = first
        self.total_counts = counts.sum(1, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, rows: Any) -> CellBatch:
        counts = torch.from_numpy(self.counts[rows])
        ids = np.array([f"cell_{i}" for i in np.arange(self.first, self.first + len(self))[rows]])
        half = (counts[:, 0] > 0).long()
        total_counts = torch.from_numpy(self.total_counts[rows])
        metadata = {"total_counts": total_counts, "cell_id": ids, "half": half}
        return CellBatch(counts, metadata)


class StandIn(LightningDataModule):
    """What the model uses of a ScRNADataModule, from counts in memory."""

    def __init__(
        self, counts: NDArray[np.int16], *, n_val: int, batch_size: int, tokenizer: BinTokens
    ) -> None:
        super().__init__()
        self.gene_ids = [f"ENSG{i:05d}" for i in range(counts.shape[1])]
        self.gene_symbols = [f"GENE{i}" for i in range(counts.shape[1])]
        self.gene_places = None
        self.categories = {"half": ["low", "high"]}
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.seed = 0
        self.train_dataset = Cells(counts[n_val:], n_val)
        self.val_dataset = self.test_dataset = Cells(counts[:n_val], 0)
        self.val_order = np.arange(n_val)
        self.epoch_start = 0
        tokenizer.fit(counts[n_val:], counts[n_val:].sum(1))

    def train_dataloader(self) -> "Batches":
        order = np.random.default_rng(self.seed).permutation(len(self.train_dataset))
        n_full = len(order) // self.batch_size * self.batch_size
        return Batches(self, self.train_dataset, order[:n_full])

    def val_dataloader(self) -> "Batches":
        return Batches(self, self.val_dataset, self.val_order)

    test_dataloader = val_dataloader


class Batches:
    """A loader: tokenised batches of the cells in the given order."""

    def __init__(self, data: StandIn, cells: Cells, order: NDArray[np.int64]) -> None:
        self.data = data
        self.cells = cells
        self.order = order

    def __len__(self) -> int:
        return -(-len(self.order) // self.data.batch_size)

    def __iter__(self) -> Iterator[TokenBatch]:
        for start in range(0, len(self.order), self.data.batch_size):
            counts, metadata = self.cells[self.order[start : start + self.data.batch_size]]
            yield TokenBatch(self.data.tokenizer.encode(counts), metadata | {"counts": counts})


class Mixture:
    """A finite mixture of product categoricals: exact likelihood, conditionals and samples."""

    def __init__(self, *, n_genes: int, n_tokens: int, n_components: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        raw_mgv = torch.randn(n_components, n_genes, n_tokens, generator=generator)
        depth_m = torch.linspace(-0.7, 0.7, n_components)  # components differ in their totals too
        raw_mgv += depth_m[:, None, None] * torch.arange(n_tokens)
        self.log_p_mgv = raw_mgv.log_softmax(-1)
        self.log_weight_m = torch.full((n_components,), 1 / n_components).log()
        self.mask_id = n_tokens

    def sample(self, n_cells: int, *, seed: int) -> Tensor:
        """Tokens [c, g]."""
        generator = torch.Generator().manual_seed(seed)
        weight_m = self.log_weight_m.exp()
        component_c = weight_m.multinomial(n_cells, replacement=True, generator=generator)
        p_cgv = self.log_p_mgv[component_c].exp()
        return p_cgv.flatten(0, 1).multinomial(1, generator=generator).view(p_cgv.shape[:2])

    def nll(self, tokens_cg: Tensor) -> Tensor:
        """Exact -log p(cell) / n_genes, [c]."""
        return -self._joint(tokens_cg).logsumexp(-1) / tokens_cg.shape[1]

    def denoise(self, tokens_cg: Tensor) -> Tensor:
        """Exact log p(token | what is seen of the others), [c, g, v]."""
        posterior_cm = self._joint(tokens_cg).softmax(-1)
        return torch.einsum("cm,mgv->cgv", posterior_cm, self.log_p_mgv.exp()).log()

    def _joint(self, tokens_cg: Tensor) -> Tensor:
        """Log p(component, what is seen), [c, m]; a masked gene says nothing.

        The id after the mask says that a gene is expressed.
        """
        silent = torch.zeros_like(self.log_p_mgv[..., :1])
        expressed = self.log_p_mgv[..., 1:].logsumexp(-1, keepdim=True)
        table_mgv = torch.cat([self.log_p_mgv, silent, expressed], -1)
        rows_g = torch.arange(tokens_cg.shape[1])
        return self.log_weight_m + table_mgv[:, rows_g, tokens_cg].sum(-1).T
