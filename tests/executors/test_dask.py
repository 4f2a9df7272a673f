"""A Dask cluster's workers do tasks, and others do those of one that is killed."""

import logging
from pathlib import Path
from time import monotonic, sleep

import pytest

pytest.importorskip("distributed")

from scdiff_data.executors import DaskWorkers, hire
from support.dask_cluster import dask_cluster, fail_once, nap


@pytest.mark.soak
def test_the_tasks_of_a_worker_that_is_killed_are_done_by_another(tmp_path: Path) -> None:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask_cluster(tmp_path / "dask") as cluster:
        victim = cluster.add()
        with (
            DaskWorkers(cluster.address).open(1 << 30) as place,
            hire(place, tmp_path / "making") as crew,
        ):
            numbers = {crew.send(nap, 0.3, "task") for _ in range(4)}
            while not list(crew.folder.glob("*/made")):
                sleep(0.01)
            cluster.add()
            victim.kill()
            taken = [crew.take() for _ in numbers]
            assert {done.number for done in taken} == numbers
            assert victim.pid not in {done.value for done in taken}
            # What failed is done again, and not taken for a call that was made already.
            (done,) = crew.run(fail_once, [str(tmp_path / "marker")], "task")
            assert done.value
            start = monotonic()
    assert monotonic() - start < 5


def test_no_scheduler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scdiff_data.executors.engines._SECONDS_TO_ANSWER", 0.5)
    with (
        pytest.raises(ConnectionError, match=r"no Dask scheduler answers at executor.address=tcp"),
        DaskWorkers("tcp://127.0.0.1:9").open(1 << 30),
    ):
        pass
    with pytest.raises(ValueError, match=r"executor.address must be .* such as tcp"):
        DaskWorkers("10.0.0.1")
