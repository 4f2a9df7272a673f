"""A prepared directory: made, or found, and opened only if it is what a run asks for.

One that was opened as it is has a recipe that knows its source by its settings alone.
"""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from scdiff_data.errors import ManifestError
from scdiff_data.pipeline import plan, prepare
from scdiff_data.planning import Plan
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.remote import fetch_processed
from scdiff_data.shards import check_shards
from scdiff_data.sources import StoredSource
from scdiff_data.store import Manifest

_OF_BUCKETS = {"processed_url", "local_limit"}
"""Options that a directory which is opened as it is takes, too."""


def read_settings(data_dir: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a DataModule that a directory's manifest knows.

    With `processed_url`, the directory is made a local copy of that bucket first.

    Parameters
    ----------
    data_dir
        The directory, or its `processed` folder.
    given
        Those that the user gives.

    Raises
    ------
    FileNotFoundError
        If it was not prepared.
    ManifestError
        If its manifest is damaged, or of another version.
    ValueError
        If the user gives what the manifest knows, or what is for preparing.
    """
    known, own = signature(Recipe).parameters.keys(), signature(PrepareOptions).parameters.keys()
    if wrong := sorted({*known, *own, "replace_data"} & {*given} - _OF_BUCKETS):
        raise ValueError(
            f"{wrong} cannot be set for a directory that is opened as it is: its manifest has the "
            "recipe, and nothing is prepared; to prepare other data, give ScRNADataModule a source"
        )
    if given.get("processed_url") is None:
        manifest = Manifest.read(data_dir)
    else:
        limit = given.get("local_limit")
        manifest = fetch_processed(given["processed_url"], data_dir, local_limit=limit)
    settings = dict(manifest.recipe)
    if not (settings.keys() <= known and Recipe.from_settings(settings).makes_what(settings)):
        raise ManifestError(
            f"{manifest.directory.manifest} has a recipe of another version of scdiff_data, "
            f"{manifest.packages.get('scdiff_data')}: open it with that one, or prepare again in a "
            "new directory"
        )
    # The format that the recipe asked for may have been converted since.
    return settings | {"data_dir": manifest.data_dir, "shard_format": "auto"}


def plan_work(recipe: Recipe, data_dir: Path, options: PrepareOptions) -> Plan:
    """What `make_ready` would draw, fetch and store; raises ValueError without a source."""
    if isinstance(recipe.source, StoredSource):
        raise ValueError(
            f"{data_dir} was opened as it is: nothing would be drawn or fetched; to plan other "
            "data, give ScRNADataModule a source"
        )
    known = dict(vars(options))
    for name in ("replace", "stages", "executor", *_OF_BUCKETS):
        del known[name]
    return plan(recipe, data_dir, **known)


def make_ready(recipe: Recipe, data_dir: Path, options: PrepareOptions) -> Manifest | None:
    """Make the directory, or find it made; without a source look at it alone.

    After `stages=download`, which finishes none, it gives None.
    """
    if isinstance(recipe.source, StoredSource):
        return open_manifest(recipe, data_dir, full=False)
    manifest: Manifest | None = prepare(recipe, data_dir, **vars(options))
    return manifest


def open_manifest(recipe: Recipe, data_dir: Path, *, full: bool) -> Manifest:
    """Read the manifest, and compare it with the recipe and with the shards.

    Raises
    ------
    FileNotFoundError
        If the directory was not prepared.
    ManifestError
        If it was prepared with other settings, or is damaged.
    """
    manifest = Manifest.read(data_dir)
    if not (recipe.makes_what(manifest.recipe) and recipe.allows(manifest.shard_format)):
        way_out = "call prepare_data(), or run 'scdiff-data prepare'"
        if isinstance(recipe.source, StoredSource):
            way_out = "it was prepared again since it was opened: call from_directory again"
        raise ManifestError(
            f"{data_dir} was prepared with other settings "
            f"({recipe.describe_difference(manifest.recipe)}): {way_out}"
        )
    with manifest.opening():
        check_shards(manifest, full=full)
    return manifest
