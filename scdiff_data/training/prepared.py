"""A prepared directory, opened only if it is what a run asks for."""

from pathlib import Path

from scdiff_data.errors import ManifestError
from scdiff_data.recipes import Recipe
from scdiff_data.shards import check_shards
from scdiff_data.store import Manifest


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
        raise ManifestError(
            f"{data_dir} was prepared with other settings "
            f"({recipe.describe_difference(manifest.recipe)}): "
            "call prepare_data(), or run 'scdiff-data train prepare_only=true'"
        )
    check_shards(manifest, full=full)
    return manifest
