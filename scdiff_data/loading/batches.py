"""What comes from datasets: batches of counts or of tokens, and the same cells as an AnnData."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pandas as pd
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

if TYPE_CHECKING:
    from anndata import AnnData


class CellBatch(NamedTuple):
    """Cells as they come from a dataset.

    Parameters
    ----------
    expression
        Counts, int16 [b, g].
    metadata
        `cell_id` and `experiment_id`, `LazyStrings` [b]; `total_counts`, int32 [b], of the whole
        cell over all its genes; and the labels asked for [b]: codes into the dataset's
        `categories`, int64, -1 where missing, or the numbers themselves. Where the data were
        prepared with `fallback_min_genes`, also `gene_ids`, int64 [b, g]: which gene each place
        holds, by its row in `metadata/genes.parquet`.
    """

    expression: Tensor
    metadata: dict[str, Any]


class TokenBatch(NamedTuple):
    """Cells as tokens.

    Parameters
    ----------
    tokens
        [b, g]: int64 from a DataModule, on the batch's device; uint8 or int16 on the way there.
    metadata
        As in a `CellBatch`. `counts` are what the tokens stand for, [b, g]: in validation and test
        batches of a DataModule, and in training with `train_counts`.
    """

    tokens: Tensor
    metadata: dict[str, Any]


_Batch = TypeVar("_Batch", CellBatch, TokenBatch)
"""Either."""


def take_first(batch: _Batch) -> _Batch:
    """A batch's first cell, without the first dimension."""
    values, metadata = batch
    return type(batch)(values[0], {name: column[0] for name, column in metadata.items()})


def take_counts(
    batch: CellBatch | TokenBatch, n_genes: int, gene_places: Sequence[int] | None
) -> csr_matrix:
    """A batch's counts of its genes as CSR, [b, g].

    Parameters
    ----------
    batch
        Of counts, or of tokens that carry them.
    n_genes
        Genes that it must have.
    gene_places
        Where places may hold other genes, the columns' own: the others' counts are left out. A
        place is taken only where its own gene has no count.

    Raises
    ------
    ValueError
        If it has no counts, or of other genes, or is a single cell.
    """
    counts = batch.metadata.get("counts") if isinstance(batch, TokenBatch) else batch.expression
    if counts is None:
        raise ValueError(
            "the batch holds tokens without counts: set train_counts=True of the DataModule, or "
            "name rows of the dataset"
        )
    if counts.shape[1:] != (n_genes,):
        raise ValueError(
            f"a batch must be [cells, {n_genes} genes], got {list(counts.shape)}: ask the dataset "
            "that it came from; one cell is dataset[[row]]"
        )
    counts = counts.detach().cpu()
    if counts.layout == torch.sparse_csr:
        parts = counts.values(), counts.col_indices(), counts.crow_indices()
        return csr_matrix(tuple(part.numpy() for part in parts), counts.shape)
    if gene_places is not None:
        is_own = batch.metadata["gene_ids"].cpu() == torch.tensor(gene_places)
        counts = counts.where(is_own, 0)
    return csr_matrix(counts.numpy())


def make_anndata(
    counts: csr_matrix,
    metadata: Mapping[str, Any],
    genes: tuple[list[str], list[str]],
    labels: Sequence[str],
    categories: Mapping[str, list[str]],
) -> "AnnData":
    """Cells as an AnnData.

    Parameters
    ----------
    counts
        [b, g].
    metadata
        As in a `CellBatch`, on any device.
    genes
        Ids and symbols of the columns.
    labels, categories
        Which of the metadata are labels, and what the codes of each text label stand for.
    """
    from anndata import AnnData

    columns: dict[str, Any] = {
        "experiment_id": pd.Categorical(metadata["experiment_id"].tolist()),
        "total_counts": metadata["total_counts"].numpy(force=True),
    }
    for name in [label for label in labels if label in metadata]:  # it may have fewer
        columns[name] = metadata[name].numpy(force=True)
        if name in categories:
            words = pd.Categorical.from_codes(columns[name], pd.Index(categories[name]))
            columns[name] = words.remove_unused_categories()  # as AnnData does of a part
    ids, symbols = genes
    obs = pd.DataFrame(columns, index=metadata["cell_id"].tolist())
    return AnnData(counts, obs=obs, var=pd.DataFrame({"gene_symbols": symbols}, index=ids))
