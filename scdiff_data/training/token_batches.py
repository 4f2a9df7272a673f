"""Where counts become tokens: while cells are gathered if a table is enough, else on the device."""

from scdiff_data.loading import CellBatch, HVGDataset, TokenBatch, TokenDataset
from scdiff_data.tokenizers import Tokenizer, find_count_table


def serve_tokens(
    cells: HVGDataset, tokenizer: Tokenizer | None, *, with_counts: bool
) -> HVGDataset | TokenDataset:
    """The cells as narrow tokens, where the tokenizer is a table and nobody asks for counts."""
    table = None if tokenizer is None or with_counts else find_count_table(tokenizer)
    return cells if table is None else TokenDataset(cells, table)


def finish_batch(
    batch: CellBatch | TokenBatch, tokenizer: Tokenizer | None
) -> CellBatch | TokenBatch:
    """What a module sees, made on the device that the batch is on: tokens int64, if any."""
    if tokenizer is None:
        return batch
    tokenizer.to(batch[0].device)
    if isinstance(batch, TokenBatch):
        return TokenBatch(batch.tokens.long(), batch.metadata)
    counts = batch.expression
    return TokenBatch(tokenizer.encode(counts), batch.metadata | {"counts": counts})
