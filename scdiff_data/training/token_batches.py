"""Tokens: what a tokenizer is fitted on, and where a DataModule's counts become tokens.

While cells are gathered, if a table is enough, else on the device.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scdiff_data.loading import CellBatch, HVGDataset, TokenBatch, TokenDataset
from scdiff_data.store import Manifest
from scdiff_data.tokenizers import FitData, Tokenizer, find_count_table


def open_fit_data(manifest: Manifest) -> FitData:
    """A prepared directory's training cells, as tokenizers take them; nothing is read yet."""

    def read_training_counts(n: int) -> tuple[NDArray[np.int16], NDArray[np.integer[Any]]]:
        cells = HVGDataset(manifest, split="train", labels=[])[:n]
        return cells.expression.numpy(), cells.metadata["total_counts"].numpy()

    return FitData(
        manifest.data_dir,
        manifest.directory.fits,
        digest=manifest.shards_key,
        genes_digest=manifest.genes.chosen_digest,
        read_training_counts=read_training_counts,
    )


def serve_tokens(
    cells: HVGDataset, tokenizer: Tokenizer | None, *, with_counts: bool
) -> HVGDataset | TokenDataset:
    """The cells as narrow tokens, where the tokenizer is a table and nobody asks for counts."""
    table = None if tokenizer is None or with_counts else find_count_table(tokenizer)
    return cells if table is None else TokenDataset(cells, table)


def transfer_tokens(
    move: Callable[[Any, Any, int], CellBatch | TokenBatch],
    tokenizer: Tokenizer,
    batch: CellBatch | TokenBatch,
    device: torch.device,
    dataloader_idx: int,
) -> TokenBatch:
    """What a module sees, made on the device that `move` puts the batch on: tokens int64."""
    batch = move(batch, device, dataloader_idx)
    tokenizer.to(batch[0].device)
    if isinstance(batch, TokenBatch):
        return TokenBatch(batch.tokens.long(), batch.metadata)
    counts = batch.expression
    return TokenBatch(tokenizer.encode(counts), batch.metadata | {"counts": counts})
