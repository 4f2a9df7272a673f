"""Predictions back into the user's AnnData: each value to the cell that it was predicted for."""

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray

from scdiff_data.loading import HVGDataset


def join_batches(values: Any, n_dims: int) -> NDArray[Any]:
    """Values of all cells as one array of `n_dims` dimensions, given so or a batch at a time.

    Raises
    ------
    ValueError
        If they make no such array.
    """
    if isinstance(values, list | tuple):
        parts = [_to_array(part) for part in values]
        # Batches have the dimension of cells, single cells do not.
        are_batches = bool(parts) and all(part.ndim >= n_dims for part in parts)
        joined = np.concatenate(parts) if are_batches else np.asarray(parts)
    else:
        joined = _to_array(values)
    if n_dims == 1 and joined.ndim == 2 and joined.shape[1] == 1:
        joined = joined[:, 0]  # a network's one output
    if joined.ndim != n_dims or joined.dtype.kind == "O":
        wanted = "one value a cell [n]" if n_dims == 1 else "a row of values a cell [n, d]"
        found = f"an array {list(joined.shape)} of {joined.dtype}"
        raise ValueError(
            f"values must be {wanted}, as an array or as a list of batches, got {found}; write_obs "
            "takes one value a cell, write_obsm several"
        )
    return joined


def _to_array(values: Any) -> NDArray[Any]:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        if values.dtype in (torch.bfloat16, torch.float16):  # numpy has no bfloat16
            values = values.float()
        return np.asarray(values.numpy())
    array = np.asarray(values)
    if array.dtype.kind == "O" and all(isinstance(value, str) for value in array.flat):
        return array.astype(np.str_)
    return array


class Placement(TypedDict, total=False):
    """How values find their cells.

    Parameters
    ----------
    cell_ids
        Which cell each value is of, by our id; None: those predicted, in their order.
    fill
        What a cell of the AnnData gets that has no value; None: there must be none.
    """

    cell_ids: Sequence[str] | None
    fill: Any


def align(
    adata: AnnData, values: NDArray[Any], cells: HVGDataset, **how: Unpack[Placement]
) -> NDArray[Any]:
    """The values in the order of the cells of `adata`.

    Parameters
    ----------
    adata
        Its `obs_names` are our ids, `{experiment_id}_{barcode}`, or the source's barcodes.
    values
        [n] or [n, d].
    cells
        The cells predicted.
    **how
        See `Placement`.

    Raises
    ------
    ValueError
        If values and cells do not pair, or a cell has no value.
    """
    cell_ids, fill = how.get("cell_ids"), how.get("fill")
    known = cells.read_ids()
    ids = known if cell_ids is None else np.asarray(cell_ids, np.str_)
    if len(values) != len(ids):
        raise ValueError(
            f"{len(values)} values for {len(ids)} cells: give one a cell, in the order of "
            "predict_dataloader; each of several ranks predicts its own cells alone, so gather "
            "values and metadata['cell_id'] of all ranks and give the ids as cell_ids"
        )
    index = pd.Index(ids)
    if index.has_duplicates:
        twice = index[index.duplicated()][0]
        raise ValueError(f"cell_ids must name each cell once, {twice!r} is there twice")
    at = pd.Index(known).get_indexer(index)
    if (at < 0).any():
        raise ValueError(f"cell_ids must be ids of cells predicted, got {str(ids[at < 0][0])!r}")
    experiments = cells.read_ids("experiment_id")[at]
    barcodes = pd.Index([i.removeprefix(f"{e}_") for i, e in zip(ids, experiments, strict=True)])
    places = _find_places(adata.obs_names, index, barcodes)
    missing = places < 0
    if missing.any() and fill is None:
        raise ValueError(
            f"{missing.sum()} of the {adata.n_obs} cells got no value, among them "
            f"{adata.obs_names[missing][0]!r}: predict them too (predict_split='all'; what QC left "
            "out has none), write into adata[names of the cells predicted].copy(), or say with "
            "fill what the others get"
        )
    if not missing.any():
        return values[places]
    kind = object if values.dtype.kind in "US" else np.result_type(values, np.asarray(fill))
    aligned = np.full((adata.n_obs, *values.shape[1:]), fill, kind)
    aligned[~missing] = values[places[~missing]]
    return aligned


def _find_places(names: pd.Index, ids: pd.Index, barcodes: pd.Index) -> NDArray[np.intp]:
    """Where each name's value is, -1 without one; names are all ids or all barcodes."""
    if names.has_duplicates:
        raise ValueError(
            f"obs_names must name each cell once, {names[names.duplicated()][0]!r} is there twice: "
            "name the cells {experiment_id}_{barcode}"
        )
    n_ids, n_barcodes = names.isin(ids).sum(), names.isin(barcodes).sum()
    if not n_ids and not n_barcodes:
        raise ValueError(
            f"no cell of adata was predicted: its obs_names are like {list(names[:2])}, the cells "
            f"predicted have ids like {list(ids[:2])} and barcodes like {list(barcodes[:2])}"
        )
    if n_ids >= n_barcodes:
        return ids.get_indexer(names)
    shared = barcodes[barcodes.duplicated()].intersection(names)
    if len(shared):
        own = ids[barcodes == shared[0]]
        raise ValueError(
            f"the barcode {shared[0]!r} is that of {len(own)} cells, {', '.join(own[:3])}: name "
            "the cells of adata {experiment_id}_{barcode}"
        )
    return barcodes.drop_duplicates(keep=False).get_indexer(names)
