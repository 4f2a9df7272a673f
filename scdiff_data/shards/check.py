"""Whether a prepared directory is whole: its shards beside what the manifest says of them."""

import h5py
import numpy as np

from scdiff_data.base import hash_file
from scdiff_data.errors import ManifestError
from scdiff_data.store import Manifest


def check_shards(manifest: Manifest, *, full: bool) -> None:
    """Compare the shards' sizes and headers with the manifest, and with `full` every byte.

    Raises
    ------
    ManifestError
        If a shard is of another run, or damaged.
    """
    manifest.check_files(manifest.directory.shards)
    name, first = manifest.directory.manifest.name, 0
    n_cells, n_genes = sum(manifest.n_cells.values()), manifest.genes.n_chosen
    for path, entry in zip(manifest.shards, manifest.shard_entries, strict=True):
        wanted = (manifest.shards_key, (min(manifest.shard_size, n_cells - first), n_genes))
        first += manifest.shard_size
        try:
            with h5py.File(path) as file:
                expression = file["expression"]
                found = (str(file.attrs["key"]), expression.shape)
                is_mapped = expression.id.get_offset() is not None and expression.dtype == np.int16
        except (OSError, KeyError) as error:
            raise ManifestError(
                f"{path} is damaged ({error}): delete it and {name}, and prepare again; what is "
                "whole stays"
            ) from error
        if found != wanted or not is_mapped:
            raise ManifestError(
                f"{path} is of another run: it has key and shape {found}, {name} says {wanted}: "
                f"delete it and {name}, and prepare again; what is whole stays"
            )
        if full and hash_file(path) != entry.sha256:
            raise ManifestError(
                f"{path} has another checksum than {name} says, so bytes of it have changed: "
                f"delete it and {name}, and prepare again; what is whole stays"
            )
