"""Files come by a process of their own, in the order of a plan, within a limit, whoever dies."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from scdiff_data import DownloadError, ManifestError
from scdiff_data.fetching import FileFetcher, RemoteFile
from scdiff_data.fetching.fetch_process import _Fetching
from scdiff_data.fetching.shared_folder import SharedFolder
from scdiff_data.fetching.wanted import Wanted
from support.buckets import server_at
from support.cases import TESTS, GcsServer
from support.fault_proxy import FaultProxy

SIZE = 10_000
CONTENTS = [np.random.default_rng(i).bytes(SIZE) for i in range(12)]
FILES = [
    RemoteFile(f"batch_{i}.h5", f"object_{i}", SIZE, sha256(content).hexdigest())
    for i, content in enumerate(CONTENTS)
]
INDEX = RemoteFile("config.json", "config.json", 2, sha256(b"{}").hexdigest())


def fill(folder: Path) -> Path:
    folder.mkdir()
    for file, content in zip(FILES, CONTENTS, strict=True):
        (folder / file.remote).write_bytes(content)
    (folder / "config.json").write_bytes(b"{}")
    return folder


def make(url: object, local: Path, limit: int | None = None) -> FileFetcher:
    folder, aside = local / "processed", local / "downloads"
    return FileFetcher(str(url), INDEX, FILES, folder=folder, aside=aside, limit=limit)


def names(local: Path) -> set[int]:
    return {int(path.stem.split("_")[1]) for path in (local / "processed").glob("*")}


def start(script: str, *given: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, given)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])},
    )


def wait_for(condition: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_is_waited_for_comes_before_plans_and_the_newest_plan_first() -> None:
    wanted = Wanted()
    wanted.extend(1, [[0, 1], [2]], n_over=0)
    wanted.extend(2, [[5], [6]], n_over=0)
    wanted.ask([4])
    assert [file for file, _ in wanted.walk()] == [4, 5, 6, 0, 1, 2]
    assert dict(wanted.walk())[6] == {4, 5, 6}
    assert wanted.in_use == {4, 5}
    wanted.extend(2, [[7]], n_over=1)
    wanted.ask([])
    assert [file for file, _ in wanted.walk()] == [6, 7, 0, 1, 2]
    wanted.close(2)
    assert wanted.in_use == {0, 1}


def test_the_least_recently_used_leave_and_what_is_kept_does_not(tmp_path: Path) -> None:
    folder = SharedFolder(tmp_path / "here", tmp_path / "aside", FILES, 4 * SIZE)
    for number in (3, 1, 2, 0):
        folder.path(number).write_bytes(CONTENTS[number])
        folder.note_use([number])
    assert not folder.make_room(5, {3}, at_any_rate=False)  # somebody may be about to map them
    time.sleep(0.12)
    assert folder.make_room(5, {3}, at_any_rate=False)
    assert not folder.path(1).exists()
    assert folder.path(3).exists()
    assert not folder.make_room(6, {0, 2, 3, 5}, at_any_rate=False)
    assert folder.make_room(6, {0, 2, 3, 5}, at_any_rate=True)


FETCHING = """
import sys, time
from pathlib import Path
from fetching.test_fetcher import FILES, SIZE
from fetching.test_fetcher import SharedFolder
local = Path(sys.argv[1])
folder = SharedFolder(local / "here", local / "aside", FILES, 4 * SIZE)
assert folder.take(7) and folder.make_room(7, (), at_any_rate=False)
time.sleep(600)
"""


def test_what_is_waited_for_waits_in_its_turn_while_others_fetch(tmp_path: Path) -> None:
    folder = SharedFolder(tmp_path / "here", tmp_path / "aside", FILES, 4 * SIZE)
    for number in range(3):
        folder.path(number).write_bytes(CONTENTS[number])
    part = folder.path_aside(7).with_name("batch_7.h5.part")
    with start(FETCHING, tmp_path) as other:
        wait_for(part.exists)
        assert not folder.make_room(5, {0, 1, 2, 5}, at_any_rate=True, is_patient=True)
        assert folder.make_room(5, {0, 1, 2, 5, 7}, at_any_rate=True, is_patient=True)
        assert folder.make_room(5, {0, 1, 2, 5}, at_any_rate=True, is_patient=False)
        other.kill()
    assert folder.make_room(5, {0, 1, 2, 5}, at_any_rate=False)  # nobody fetches it any more
    assert not part.exists()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("bucket") / "files")


def test_a_plan_is_carried_out_in_its_order_within_the_limit(bucket: Path, tmp_path: Path) -> None:
    fetcher = make(bucket, tmp_path, limit=5 * SIZE)
    stretches = [[0, 1], [2, 3], [3, 4], [5, 6], [7], [8, 9], [10], [11, 0]]
    with fetcher.follow(iter(stretches), 2) as plan:
        wait_for(lambda: names(tmp_path) == {0, 1, 2, 3})  # nobody asked for them yet
        for number, stretch in enumerate(stretches):
            for file in fetcher.bring(stretch):
                path = tmp_path / "processed" / FILES[file].name
                assert path.read_bytes() == CONTENTS[file]
                assert len(names(tmp_path)) <= 5
            if number == 2:  # killed by whoever is short of memory
                os.kill(fetcher._process.pid, signal.SIGKILL)
            plan.go_on()
    assert not list((tmp_path / "downloads").glob("*.part"))


def test_what_is_on_its_way_is_not_deleted_for_what_is_waited_for(tmp_path: Path) -> None:
    settings = {"folder": str(tmp_path / "here"), "aside": str(tmp_path / "aside")}
    settings |= {"url": "", "index": INDEX, "files": FILES, "limit": 2 * SIZE}
    fetching = _Fetching(settings, io.StringIO())
    fetching.hear({"plan": 1, "stretches": [[0], [1]], "over": 0})
    assert [fetching._take(), fetching._take()] == [0, 1]
    parts = [fetching._folder.path_aside(number).with_suffix(".h5.part") for number in (0, 1)]
    for part in parts:
        part.write_bytes(bytes(SIZE // 2))
    fetching.hear({"ask": [5], "turn": 1})
    assert fetching._take() is None
    assert all(part.exists() for part in parts)
    parts[0].replace(fetching._folder.path(0))
    fetching._busy.clear()  # one has come, and the other one failed
    time.sleep(0.12)
    assert fetching._take() == 5
    assert not fetching._folder.path(0).exists()


def test_a_file_that_somebody_deleted_is_fetched_again(bucket: Path, tmp_path: Path) -> None:
    fetcher = make(bucket, tmp_path)
    for _ in range(2):
        assert list(fetcher.bring([1])) == [1]
        (tmp_path / "processed" / FILES[1].name).unlink()


class Slow:
    """Lets each body pass after a moment, and counts those of each object."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.counts = seconds, dict.fromkeys(range(len(FILES)), 0)

    def __call__(self, handler: object, body: bytes) -> bytes:
        number = handler.path.partition("object_")[2].split("?")[0]  # type: ignore[attr-defined]
        if number:
            self.counts[int(number)] += 1
        time.sleep(self.seconds)
        return body


@pytest.fixture
def slow(gcs: GcsServer, proxy: FaultProxy, tmp_path: Path) -> Iterator[Slow]:
    gcs.put_folder("shards", fill(tmp_path / "files"))
    proxy.fault = Slow(0.05)
    with server_at(proxy.url):
        yield proxy.fault


DYING = """
import sys
from pathlib import Path
from fetching.test_fetcher import make
list(make("gs://shards", Path(sys.argv[1])).bring(range(12)))
"""


def test_processes_fetch_each_file_once_and_go_on_for_one_that_was_killed(
    slow: Slow, tmp_path: Path
) -> None:
    slow.seconds = 0.5
    with start(DYING, tmp_path) as dying:
        wait_for(lambda: any((tmp_path / "downloads").glob("*.part")))
        dying.kill()
    slow.seconds = 0.05
    fetchers = [make("gs://shards", tmp_path) for _ in range(2)]
    streams = [fetcher.bring(range(12)) for fetcher in fetchers]
    arrived = [[next(stream)] for stream in streams]  # both have asked, and wait
    for stream, found in zip(streams, arrived, strict=True):
        assert sorted([*found, *stream]) == list(range(12))
    assert [(tmp_path / "processed" / f.name).read_bytes() for f in FILES] == CONTENTS
    assert sum(slow.counts.values()) <= 12 + 8  # those in flight at the kill, each range of two
    asked = dict(slow.counts)
    assert list(make("gs://shards", tmp_path).bring(range(12))) == list(range(12))
    assert slow.counts == asked


def test_what_cannot_be_had_is_told_with_the_way_out(tmp_path: Path) -> None:
    bucket = fill(tmp_path / "bucket")
    fetcher = make(bucket, tmp_path)
    (bucket / "object_1").unlink()
    with pytest.raises(ManifestError, match=r"lacks object_1: call prepare with processed_url"):
        list(fetcher.bring([1]))
    (bucket / "config.json").write_bytes(b"{ }")
    with pytest.raises(ManifestError, match="was replaced by another run of prepare"):
        list(fetcher.bring([1]))
    (bucket / "config.json").unlink()
    with pytest.raises(ManifestError, match="holds no prepared data any more"):
        list(fetcher.bring([1]))
    (bucket / "object_1").write_bytes(CONTENTS[1])  # sent again
    assert list(fetcher.bring([1])) == [1]
    (bucket / "object_2").write_bytes(bytes(SIZE))
    with pytest.raises(DownloadError, match=r"the manifest says 10000 and .*delete it there"):
        list(fetcher.bring([2]))
    assert names(tmp_path) == {1}
    (tmp_path / "downloads" / "batch_3.h5.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"symbolic link.*set local_limit"):
        list(fetcher.bring([3]))
    with pytest.raises(ValueError, match=r"pip install 'scdiff_data\[s3\]'"):
        list(make("s3://shards", tmp_path / "other").bring([0]))
    with (
        server_at("http://127.0.0.1:9"),
        pytest.raises(DownloadError, match=r"cannot reach 127.0.0.1:9"),
    ):
        list(make("gs://shards", tmp_path / "other").bring([0]))
