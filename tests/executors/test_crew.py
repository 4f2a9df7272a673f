"""A task is done once, whatever becomes of workers; what cannot be done says why, and where."""

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from scdiff_data import DownloadError
from scdiff_data.errors import CountError
from scdiff_data.executors import (
    Abandoned,
    Crew,
    LocalWorkers,
    Workplace,
    attempts,
    crew,
    engines,
    hire,
)

logger = logging.getLogger("scdiff_data.tests")


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "REST_SECONDS", 0.0)


def write_name(job: str, folder: Path) -> str:
    """A task: write a file, and say by whom."""
    (folder / "made").write_text(job)
    logger.warning("%s is written", job)
    return f"{os.getpid()}"


def die_once(marker: str, folder: Path) -> str:
    """A task whose first worker is killed."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return write_name("again", folder)


def die(_: object, __: Path) -> None:
    os._exit(1)


def sleep(seconds: float, folder: Path) -> None:
    (folder.parent / "asleep").touch()
    time.sleep(seconds)


@contextmanager
def threads(folder: Path) -> Iterator[Crew]:
    with ThreadPoolExecutor(2) as pool, hire(Workplace(pool, 2), folder / "making") as found:
        yield found


def failing(errors: list[Exception]) -> Callable[[Any, Path], str]:
    """A task that fails with each of some errors in turn, and then does not."""

    def fail(job: str, folder: Path) -> str:
        if errors:
            raise errors.pop(0)
        return write_name(job, folder)

    return fail


def test_what_a_task_made_is_there_until_the_next_and_nothing_is_at_the_end(tmp_path: Path) -> None:
    with threads(tmp_path) as found:
        for number, done in enumerate(found.run(write_name, ["one"] * 5, "task")):
            done.move(done.folder / "made", tmp_path / f"{number}" / "made")
            assert len([p for p in found.folder.iterdir() if p == done.folder]) == 1
        assert not list(found.folder.glob("1-*"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [str(i) for i in range(5)]


def test_what_fails_for_a_passing_reason_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [DownloadError("no route"), OSError("stale handle"), MemoryError()]
    with threads(tmp_path) as found:
        (done,) = found.run(failing(errors), ["one"], "reading file")
        assert done.value == f"{os.getpid()}"
    assert f":{os.getpid()} and is tried again: DownloadError: no route" in caplog.text
    assert not errors


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a rule"),
        CountError("no counts"),
        DownloadError("gone", permanent=True),
        OSError(28, "No space left on device"),
    ],
)
def test_what_no_other_try_mends_comes_through_as_it_is(tmp_path: Path, error: Exception) -> None:
    with threads(tmp_path) as found:
        found.send(failing([error] * 9), "one", "task")
        with pytest.raises(type(error)) as raised:
            found.take()
    assert raised.value is error


def test_a_task_that_fails_again_and_again_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_LONGEST_PAUSE", 0.0)
    errors: list[Exception] = [DownloadError(f"try {i}") for i in range(30)]
    with threads(tmp_path) as found:
        found.send(failing(errors), "one", "task")
        with pytest.raises(DownloadError, match="try"):
            found.take()
    assert 9 <= 30 - len(errors) <= 20  # two at a time


def test_a_worker_that_cannot_work_does_not_end_what_others_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_LONGEST_PAUSE", 0.01)
    errors: list[Exception] = [DownloadError("no network") for _ in range(12)]
    with threads(tmp_path) as found:
        hard = found.send(failing(errors), "hard", "hard")
        taken = []
        for _ in range(30):
            found.send(write_name, "easy", "easy")
            taken.append(found.take().number)
        while hard not in taken:
            taken.append(found.take().number)
    assert not errors


def test_a_worker_that_does_not_see_the_directory_is_told_by_name(tmp_path: Path) -> None:
    with threads(tmp_path) as found:
        shutil.rmtree(found.folder)
        found.send(write_name, "one", "task")
        with pytest.raises(
            FileNotFoundError, match=rf":{os.getpid()} cannot write in .*/making .*mount"
        ):
            found.take()


def test_an_attempt_that_nobody_waits_for_finds_out(tmp_path: Path) -> None:
    with threads(tmp_path) as found:
        begun, left = threading.Event(), threading.Event()

        def wait(_: object, folder: Path) -> None:
            begun.set()
            abandoned = Abandoned(folder)
            while not abandoned.is_set():
                abandoned.wait(0.01)
            left.set()

        found.send(wait, None, "task")
        assert begun.wait(10)
        assert not left.is_set()
    assert left.wait(10)


class Losing(Executor):
    """Loses each task so many times, in its own way."""

    def __init__(self, n_times: int, error: Exception) -> None:
        self.n_times, self.error = n_times, error

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        self.n_times -= 1
        if self.n_times >= 0:
            future.set_exception(self.error)
        else:
            future.set_result(function(*args, **kwargs))
        return future


def test_a_task_that_the_executor_lost_is_sent_again_but_not_for_ever(tmp_path: Path) -> None:
    with hire(Workplace(Losing(2, KeyError("worker")), 1), tmp_path / "making") as found:
        found.send(write_name, "one", "task")
        assert found.take().value == f"{os.getpid()}"
    with hire(Workplace(Losing(9, KeyError("worker")), 1), tmp_path / "making") as found:
        found.send(write_name, "one", "task of mine")
        with pytest.raises(ConnectionError, match=r"task of mine was lost 3 times.*KeyError"):
            found.take()


def test_an_executor_that_was_shut_down_is_told(tmp_path: Path) -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with (
        hire(Workplace(pool, 1), tmp_path / "making") as found,
        pytest.raises(ConnectionError, match="does not take task any more"),
    ):
        found.send(write_name, "one", "task")


def test_a_users_pool_that_broke_is_told(tmp_path: Path) -> None:
    pool = ProcessPoolExecutor(1, get_context("fork"))
    with pool, hire(Workplace(pool, 1), tmp_path / "making") as found:
        found.send(die, None, "task")
        with pytest.raises(ConnectionError, match=r"executor is broken.*make a new one"):
            found.take()


def test_local_workers_are_replaced_and_heard_and_end_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    with LocalWorkers(2).open(1 << 30) as place, hire(place, tmp_path / "making") as found:
        (done,) = found.run(die_once, [str(tmp_path / "marker")], "task")
        assert done.value != f"{os.getpid()}"
        assert "a worker was lost, and others take its place" in caplog.text
        assert f"again is written (on {os.uname().nodename}:{done.value})" in caplog.text
        for _ in range(4):
            found.send(sleep, 60.0, "task")
        while not (found.folder / "asleep").exists():
            time.sleep(0.01)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            found.take()
    assert time.monotonic() - start < 2.1
    assert not (tmp_path / "making").exists()


def test_processes_are_taken_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    @contextmanager
    def open_none(self: LocalWorkers, max_memory: int) -> Iterator[str]:
        opened.append((self, max_memory))
        yield "processes"

    monkeypatch.setattr(LocalWorkers, "open", open_none)

    def choose(given: Any, n_cores: int, n_bytes: int) -> Any:
        monkeypatch.setattr(engines, "count_cores", lambda: n_cores)
        with engines.choose_workers(given, n_bytes=n_bytes, max_memory=1) as found:
            return found

    assert choose(None, 2, 10**12) is None
    assert choose(None, 8, 10**8) is None
    assert choose("threads", 8, 10**12) is None
    assert choose(None, 8, 10**10) == "processes"
    assert choose("local", 2, 0) == "processes"
    assert [engine for engine, _ in opened] == [LocalWorkers(), LocalWorkers()]


@pytest.mark.parametrize(
    "given", ["dask", 3, {"address": "tcp://here:1"}], ids=["a name", "a number", "a mapping"]
)
def test_what_is_no_executor_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="executor must be None, 'threads', 'local', LocalWorkers"):
        engines.check_executor(given)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("distributed", "dask_jobqueue"):
        monkeypatch.setitem(sys.modules, name, None)
    for engine, extra in (
        (engines.DaskWorkers("tcp://x:1"), "dask"),
        (engines.SlurmWorkers(), "slurm"),
    ):
        with (
            pytest.raises(ImportError, match=rf"pip install 'scdiff_data\[{extra}\]'"),
            engine.open(1),
        ):
            pass


def test_a_run_begins_and_ends_though_a_late_attempt_removes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    making, made = tmp_path / "making", []
    make_folder = attempts.mkdtemp

    def make_late(**where: Any) -> str:
        if not made:
            making.rmdir()
        made.append(where)
        return make_folder(**where)

    def list_late(path: Path, _: str) -> Any:
        path.rename(tmp_path / "gone")
        raise FileNotFoundError(path)  # as Python's own does, up to 3.12

    monkeypatch.setattr(attempts, "mkdtemp", make_late)
    assert (attempts.begin_run(making) / attempts.ALIVE).exists()
    assert len(made) == 2
    monkeypatch.setattr(Path, "glob", list_late)
    attempts.remove_runs(making)
    assert not making.exists()
