"""What many tests share that is no fixture."""

import hashlib
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from scdiff_data import Pbmc, Recipe, SimulatedAtlas

TESTS = Path(__file__).parents[1]
"""Where processes that tests start find `support`."""

ROOT = TESTS.parent
"""Of the repository."""

ATLAS = SimulatedAtlas(n_experiments=6, n_cells=60, n_genes=400, seed=1)
"""Six experiments: another gene order, CSR, a junk one, an empty one, a saturated count."""

ATLAS_SETTINGS: dict[str, Any] = {
    "min_genes": 50,
    "min_counts": 500,
    "n_hvgs": 100,
    "split": {"by": "cell"},
    "shard_size": 64,
}
"""What the atlas needs, and small shards."""

PBMC_SETTINGS: dict[str, Any] = {
    "min_genes": None,
    "min_counts": None,
    "n_hvgs": 64,
    "split": {"by": "cell"},
    "labels": ("cell_type", "n_counts"),
    "shard_size": 300,
}
"""What the real cells need, and small shards."""


def pbmc_recipe(**changes: Any) -> Recipe:
    """The real cells, with what they need."""
    return Recipe(source=Pbmc(), **(PBMC_SETTINGS | changes))


def digest_tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the lock."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


class GcsServer:
    """A running fake-gcs-server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.storage_options = {"endpoint_url": url}
        """What makes the real gcsfs talk to this server."""

    def put_folder(self, bucket: str, folder: Path) -> None:
        """Make a bucket that holds a folder's files."""
        self._post("storage/v1/b?project=test", f'{{"name": "{bucket}"}}'.encode())
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(bucket, path.relative_to(folder).as_posix(), path.read_bytes())

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Put one object."""
        quoted = urllib.parse.quote(name, safe="")
        self._post(f"upload/storage/v1/b/{bucket}/o?uploadType=media&name={quoted}", content)

    def _post(self, path: str, body: bytes) -> None:
        request = urllib.request.Request(f"{self.url}/{path}", body, method="POST")
        with urllib.request.urlopen(request) as response:
            response.read()
