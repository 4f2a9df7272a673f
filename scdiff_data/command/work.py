"""What commands do with their arguments: call a function of the package, say what came of it."""

import json
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from scdiff_data.base import describe_size, write_aside
from scdiff_data.errors import ManifestError
from scdiff_data.pipeline import (
    choose_genes_again,
    convert_shards,
    find_problems,
    plan,
    prepare,
)
from scdiff_data.recipes import Recipe
from scdiff_data.reporting import describe, write_data_report
from scdiff_data.store import DataDirectory, Manifest
from scdiff_data.telling import Progress


def run_plan(data_dir: str, **given: Any) -> str:
    """Say what would be drawn, fetched and stored."""
    return str(plan(_take_recipe(given), data_dir, **given))


def run_prepare(data_dir: str, **given: Any) -> str:
    """Prepare a directory."""
    manifest: Manifest | None = prepare(_take_recipe(given), data_dir, **given)
    if manifest is None and not DataDirectory(Path(data_dir)).manifest.exists():
        return f"downloaded; --stages process makes the rest, without network: {data_dir}"
    return _describe(manifest or Manifest.read(data_dir))


def run_hvg(data_dir: str, **given: Any) -> str:
    """Choose genes again."""
    if not {*given} <= {*signature(choose_genes_again).parameters}:
        given.setdefault("genes", None)  # settings of a choice: there is one to be made
    manifest = choose_genes_again(data_dir, **given)
    if (folder := given.get("output_dir")) is not None:
        own = DataDirectory(Path(folder))
        n_genes = len(json.loads(own.hvg_info.read_text("utf-8"))["hvg_names"])
        return f"{n_genes:,} genes: {own.hvg_info}, {own.hvg_figure}"
    return _describe(manifest)


def run_info(data_dir: str, *, png: Path | None = None, json: bool = False) -> str:
    """Show what a directory holds, and whether it is whole; or a checkpoint's model card.

    Parameters
    ----------
    data_dir
        The directory: finished, unfinished or damaged; or a checkpoint of the demo model.
    png
        A file to draw it in, too.
    json
        Whether it is printed as JSON.
    """
    if Path(data_dir).is_file():
        return _describe_checkpoint(data_dir, png=png, as_json=json)
    with Progress("look"):
        card = describe(data_dir)
    if png is not None:
        card.draw(png)
    return card.to_json() if json else str(card)


def run_report(data_dir: str, **how: Any) -> str:
    """Write a page about a directory, and say where."""
    return str(write_data_report(data_dir, **how))


def run_check(data_dir: str, **how: Any) -> str:
    """Compare every byte with what was written; raises ManifestError if any differs."""
    manifest = Manifest.read(data_dir)
    if problems := find_problems(manifest, **how):
        raise ManifestError("\n".join(problems))
    size = describe_size(sum(entry.size for entry in manifest.files))
    return f"{len(manifest.files)} files, {size}: all as they were written: {data_dir}"


def run_convert(data_dir: str, shard_format: str, **how: Any) -> str:
    """Convert shards."""
    manifest = convert_shards(data_dir, shard_format, **how)
    size = describe_size(sum(entry.size for entry in manifest.shard_entries))
    return f"{len(manifest.shards)} {manifest.shard_format} shards, {size}: {data_dir}"


def run_generate(checkpoint: str, *, output: str, **how: Any) -> str:
    """Generate cells of a checkpoint, and write them whole or not at all."""
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(
            f"{checkpoint} is no file: name a checkpoint, such as runs/DATE/checkpoints/last.ckpt"
        )
    if Path(output).suffix != ".h5ad":
        raise ValueError(f"output={output}: cells are written as h5ad: name a file that ends so")
    with Progress("load"):
        model = load_demo_model().load_from_checkpoint(
            checkpoint, map_location="cpu", weights_only=True
        )
    cells = model.generate(**how)
    with write_aside(Path(output)) as aside:
        cells.write_h5ad(aside)
    return f"{cells.n_obs:,} cells of {cells.n_vars:,} genes: {output}"


def _describe_checkpoint(checkpoint: str, *, png: Path | None, as_json: bool) -> str:
    """A checkpoint's model card, which needs torch to be read."""
    if png is not None:
        raise ValueError(f"{checkpoint} is a file: only what a directory holds is drawn (png)")
    evaluation = import_module("scdiff_data.evaluation")
    card = evaluation.read_card(checkpoint)
    return json.dumps(card, indent=2) if as_json else str(evaluation.describe_card(card))


def load_demo_model() -> Any:
    """The class of the demo model, which no other room knows: it stands on all of them."""
    return import_module("scdiff_data.diffusion").MaskedDiffusion


def _take_recipe(given: dict[str, Any]) -> Recipe:
    """The recipe, whose settings are taken out of what is given."""
    return Recipe(**{name: given.pop(name) for name in signature(Recipe).parameters})


def _describe(manifest: Manifest) -> str:
    parts = ", ".join(f"{n:,} {name}" for name, n in manifest.n_cells.items())
    return (
        f"{manifest.genes.n_chosen:,} of {manifest.genes.n_reference:,} genes, "
        f"{sum(manifest.n_cells.values()):,} cells in {len(manifest.shards)} shards ({parts}): "
        f"{manifest.data_dir}"
    )
