"""Real Dask workers that are killed, stopped, cut off or blind: a retry, and nothing else."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scdiff_data import DaskWorkers, Recipe, ScBaseCount, SimulatedAtlas, prepare
from support.cases import ATLAS_SETTINGS, ROOT, GcsServer, digest_tree, pbmc_recipe
from support.dask_cluster import DaskCluster, dask_cluster
from support.fault_proxy import FaultProxy
from support.pages import blocks

pytestmark = pytest.mark.soak

ATLAS = SimulatedAtlas(n_experiments=64, n_cells=60, n_genes=400, seed=2)
"""Of which one file more is less than 2 % of the bytes."""


@pytest.fixture(scope="module")
def recipe_of(tmp_path_factory: pytest.TempPathFactory, gcs: GcsServer) -> Callable[[str], Recipe]:
    """A recipe of the atlas in a bucket, by way of some server."""
    gcs.put_folder("workers", Path(ATLAS.open(tmp_path_factory.mktemp("atlas")).url))

    def make(url: str) -> Recipe:
        source = ScBaseCount(url="gs://workers", storage_options={"endpoint_url": url})
        return Recipe(source=source, cell_count=2000, **ATLAS_SETTINGS)

    return make


@pytest.fixture(scope="module")
def expected(
    tmp_path_factory: pytest.TempPathFactory, gcs: GcsServer, recipe_of: Callable[[str], Recipe]
) -> dict[str, str]:
    """What threads of this process make."""
    path = tmp_path_factory.mktemp("threads")
    prepare(recipe_of(gcs.url), path, executor="threads")
    return digest_tree(path)


@pytest.fixture(autouse=True)
def _calm() -> None:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


def count_bytes(proxy: FaultProxy) -> list[int]:
    """The bytes that pass through a proxy, as they do."""
    sizes: list[int] = []

    def note(_: Any, body: bytes) -> bytes:
        sizes.append(len(body))
        return body

    proxy.fault = note
    return sizes


def run(recipe: Recipe, data_dir: Path, cluster: DaskCluster, hurt: Callable[[], object]) -> None:
    """Prepare, and hurt a worker once the first task is under way."""

    def wait() -> None:
        while not list(data_dir.glob("making/*/*-*/")):
            time.sleep(0.01)
        time.sleep(0.3)
        hurt()

    thread = threading.Thread(target=wait)
    thread.start()
    prepare(recipe, data_dir, executor=DaskWorkers(cluster.address))
    thread.join()


def in_a_view_of_its_own(mount: str) -> tuple[str, ...]:
    """What comes before a command that sees other files than all others; only root can do so."""
    command = ("unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
    if subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("no mounts of its own for a process here")
    return command


def test_a_worker_that_is_killed_costs_a_retry(
    tmp_path: Path,
    proxy: FaultProxy,
    recipe_of: Callable[[str], Recipe],
    expected: dict[str, str],
) -> None:
    sizes, recipe = count_bytes(proxy), recipe_of(proxy.url)
    with dask_cluster(tmp_path / "dask") as cluster:
        victim, _ = cluster.add(), cluster.add()
        run(recipe, tmp_path / "data", cluster, victim.kill)
        assert victim.wait() == -signal.SIGKILL
    assert digest_tree(tmp_path / "data") == expected
    n_wanted = sum(sizes_of(tmp_path / "data", recipe))
    print(f"killed: {sum(sizes)} of {n_wanted} bytes: {sum(sizes) / n_wanted - 1:.2%} too many")
    assert sum(sizes) <= 1.02 * n_wanted


def sizes_of(data_dir: Path, recipe: Recipe) -> list[int]:
    """Bytes of the files of the experiments that were tried."""
    import json

    from scdiff_data.sources import Rows, read_snapshot
    from scdiff_data.store import DataDirectory

    rows = Rows(read_snapshot(DataDirectory(data_dir).catalog, recipe.source))
    tried = json.loads((data_dir / "metadata/experiments.json").read_text())
    return [rows[entry["experiment_id"]].size for entry in tried]


def test_a_worker_that_is_stopped_for_a_minute_writes_over_nothing(
    tmp_path: Path,
    gcs: GcsServer,
    recipe_of: Callable[[str], Recipe],
    expected: dict[str, str],
) -> None:
    with dask_cluster(tmp_path / "dask", "10s") as cluster:
        victim, _ = cluster.add(), cluster.add()
        stopped = []

        def stop() -> None:
            os.kill(victim.pid, signal.SIGSTOP)
            stopped.append(time.monotonic())

        run(recipe_of(gcs.url), tmp_path / "data", cluster, stop)
        seconds = time.monotonic() - stopped[0]
        assert digest_tree(tmp_path / "data") == expected
        time.sleep(max(0.0, 60.0 - seconds))
        victim.send_signal(signal.SIGCONT)
        time.sleep(15.0)
    print(f"stopped: done {seconds:.0f} s after")
    assert digest_tree(tmp_path / "data") == expected
    assert not (tmp_path / "data/making").exists()


def test_a_worker_without_network_costs_retries(
    tmp_path: Path,
    gcs: GcsServer,
    recipe_of: Callable[[str], Recipe],
    expected: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "hosts").write_text("192.0.2.1 localhost\n")  # to where no way leads
    alone = in_a_view_of_its_own(f"mount --bind {tmp_path / 'hosts'} /etc/hosts")
    url = gcs.url.replace("127.0.0.1", "localhost")
    with dask_cluster(tmp_path / "dask") as cluster:
        cluster.add(before=alone)
        time.sleep(5.0)  # it gets the first task
        cluster.add()
        prepare(recipe_of(url), tmp_path / "data", executor=DaskWorkers(cluster.address))
    assert digest_tree(tmp_path / "data") == expected
    n_failed = caplog.text.count("and is tried again: DownloadError: cannot reach localhost")
    print(f"no network: {n_failed} tasks failed")
    assert n_failed


def test_a_worker_without_the_directory_is_named(
    tmp_path: Path, gcs: GcsServer, recipe_of: Callable[[str], Recipe]
) -> None:
    (tmp_path / "data").mkdir()
    alone = in_a_view_of_its_own(f"mount -t tmpfs none {tmp_path / 'data'}")
    with dask_cluster(tmp_path / "dask") as cluster:
        worker = cluster.add(before=alone)
        with pytest.raises(FileNotFoundError, match=rf"worker \S+:{worker.pid} cannot.*mount it"):
            prepare(recipe_of(gcs.url), tmp_path / "data", executor=DaskWorkers(cluster.address))


def test_a_scheduler_that_is_gone_is_told_and_the_same_call_goes_on(
    tmp_path: Path,
    gcs: GcsServer,
    recipe_of: Callable[[str], Recipe],
    expected: dict[str, str],
) -> None:
    with dask_cluster(tmp_path / "dask") as cluster:
        cluster.add()
        with pytest.raises(ConnectionError, match=r"the executor does not take .* any more"):
            run(recipe_of(gcs.url), tmp_path / "data", cluster, cluster.processes[0].kill)
    prepare(recipe_of(gcs.url), tmp_path / "data")
    assert digest_tree(tmp_path / "data") == expected


def test_the_adapter_of_the_how_to_page_runs_jobs_of_submitit(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    page = (ROOT / "docs/howto/many_machines.md").read_text("utf-8")
    adapter = next(block for block in blocks("py", page) if "class Submitit" in block)
    assert len(adapter.split("class Submitit")[1].strip().splitlines()) <= 10
    namespace: dict[str, Any] = {}
    exec(adapter, namespace)
    recipe = pbmc_recipe()
    jobs = namespace["Submitit"](
        tmp_path / "logs", n_jobs=2, timeout_min=5
    )  # of this machine, without Slurm
    with jobs:
        prepare(recipe, tmp_path / "jobs", executor=jobs)
    prepare(recipe, tmp_path / "threads", executor="threads")
    assert digest_tree(tmp_path / "jobs") == digest_tree(tmp_path / "threads")
