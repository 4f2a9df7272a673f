"""The model card of a checkpoint: what a model was trained on, how good it is, what it is not for.

It lies in the checkpoint as plain values, under `model_card`, so it travels with the weights and is
read without running anything; generated cells carry it as JSON.
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from scdiff_data.base import describe_number
from scdiff_data.training import ScRNADataModule

if TYPE_CHECKING:
    from anndata import AnnData
    from lightning.pytorch import LightningModule, Trainer
    from scipy.sparse import csr_matrix

CARD = "model_card"
"""Its name in a checkpoint, and in `uns` of generated cells."""

_LICENCES = {
    "pbmc": "10x Genomics' public data sets, as scanpy carries them: read theirs",
    "simulated": "none needed: simulated",
    "scbasecount": "none stated: ask the Arc Institute",
    "census": "CC BY 4.0",
    "h5ad_folder": "that of your files",
}
"""Of each source's data, as docs/data.md has it."""

_LIMITS = [
    "Generated cells are draws of a model, no measurements: no ground for any treatment.",
    "It knows the genes, labels and depths that it was trained on, and no others.",
    "It knows nothing of experiments that it has not seen but what they share with those it has.",
    "What is rare among the training cells is rarer still, or worse, among its own.",
    "A likelihood compares with others of the same genes and cells alone.",
]
"""Of every model of this kind."""


def make_card(model: "LightningModule", trainer: "Trainer") -> dict[str, Any]:
    """What is known of a model while it is trained.

    Parameters
    ----------
    model
        Its hyperparameters but the `panel`, and its number of weights, are on the card.
    trainer
        Whose DataModule says what the data are, and whose metrics of validation and test cells are
        on the card: those of the moment.
    """
    settings = {name: value for name, value in model.hparams.items() if name != "panel"}
    scores = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith(("val/", "test/"))
    }
    return {
        "model": type(model).__name__,
        "scdiff_data": version("scdiff_data"),
        "settings": settings,
        "n_parameters": sum(weights.numel() for weights in model.parameters()),
        "epoch": trainer.current_epoch,
        "step": trainer.global_step,
        "scores": scores,
        "limits": list(_LIMITS),
        "licence": {"code": "MIT", "weights": "no more free than the data"},
    } | _describe_data(getattr(trainer, "datamodule", None))


def name_cells(
    counts: "csr_matrix", conditions: NDArray[np.int64], panel: Mapping[str, Any], card: Any
) -> "AnnData":
    """Generated cells with their genes, depths, labels and card.

    Parameters
    ----------
    counts
        Their counts, [n_cells, n_genes].
    conditions
        The depth and the labels' codes that each was made for, [n_cells, 1 + n_labels].
    panel
        The names of genes and categories, as checkpoints hold them.
    card
        The model's card; None if it has none.
    """
    import anndata

    index = [f"generated_{i}" for i in range(len(conditions))]
    obs = pd.DataFrame({"total_counts": conditions[:, 0]}, index=index)
    for codes, (label, names) in zip(conditions[:, 1:].T, panel["categories"].items(), strict=True):
        obs[label] = pd.Categorical.from_codes(codes, categories=pd.Index(names))
    var = pd.DataFrame({"gene_symbols": panel["gene_symbols"]}, index=panel["gene_ids"])
    uns = {} if card is None else {CARD: json.dumps(card)}
    return anndata.AnnData(counts, obs=obs, var=var, uns=uns)


def read_card(checkpoint: str | Path) -> dict[str, Any]:
    """The card of a checkpoint; nothing in it is run.

    Raises
    ------
    ValueError
        If it is no checkpoint, or one without a card.
    """
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        card: dict[str, Any] = content[CARD]
    except (UnpicklingError, EOFError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{checkpoint} has no model card: it is no checkpoint of the demo model, or one of a "
            "version that wrote none"
        ) from error
    return card


def describe_card(card: Mapping[str, Any]) -> str:
    """The card as text."""
    settings = ", ".join(f"{name}={value}" for name, value in card["settings"].items())
    lines = [
        f"{card['model']} of {card['n_parameters']:,} weights, step {card['step']:,} (epoch "
        f"{card['epoch']:,}), scdiff_data {card['scdiff_data']}",
        f"  settings     {settings}",
    ]
    if "data" in card:
        data = card["data"]
        kept = ", ".join(f"{name}={value}" for name, value in data["source"].items())
        lines += [f"  data         {kept}", f"  recipe       {data['recipe_digest']}"]
        for name, n in data["n_cells"].items():
            experiments = describe_number(data["n_experiments"][name], "experiment")
            text = f"{describe_number(n, 'cell')} of {experiments}"
            lines.append(f"  {name:12} {text}")
        lines.append(f"  split        by {data['split']['by']}")
        genes = data["genes"]
        lines.append(f"  genes        {genes['n']:,}, digest {genes['digest']}")
    lines += [f"  {name:12} {value:.4f}" for name, value in card["scores"].items()]
    lines += [f"  licence      {name}: {text}" for name, text in card["licence"].items()]
    return "\n".join(lines + [f"  limit        {text}" for text in card["limits"]])


def _describe_data(datamodule: Any) -> dict[str, Any]:
    """The data's part, where they are a prepared directory."""
    if not isinstance(datamodule, ScRNADataModule):
        return {}
    manifest = datamodule._cells.manifest  # as it was opened: no file is looked at again
    recipe = dict(manifest.recipe)
    source = dict(recipe["source"])
    licence = _LICENCES.get(source.get("source", ""), "stated where the data are published")
    data = {
        "source": source,
        "recipe": recipe,
        "recipe_digest": manifest.recipe_digest,
        "split": dict(recipe["split"]),
        "n_cells": dict(manifest.n_cells),
        "n_experiments": dict(manifest.n_experiments),
        "genes": {"n": manifest.genes.n_chosen, "digest": manifest.genes.chosen_digest},
    }
    return {
        "data": data,
        "licence": {"code": "MIT", "data": licence, "weights": "no more free than the data"},
    }
