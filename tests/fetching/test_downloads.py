"""Downloads from a real server, through a proxy that breaks them for real."""

import errno
import hashlib
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

from scdiff_data import DownloadError
from scdiff_data.fetching import downloads
from scdiff_data.sources.source import Bucket
from support.cases import GcsServer
from support.fault_proxy import Fault, FaultProxy

CONTENT = np.random.default_rng(0).bytes(100_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
CRC32C = f"crc32c:{google_crc32c.value(CONTENT):08x}"


@pytest.fixture(autouse=True)
def _small_ranges_and_short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "RANGE_BYTES", 8192)
    monkeypatch.setattr(downloads.random, "uniform", lambda *_: 0.001)


@pytest.fixture(scope="module", autouse=True)
def _bucket(gcs: GcsServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bucket")
    (folder / "file.h5ad").write_bytes(CONTENT)
    gcs.put_folder("downloads", folder)


def fetch(url: str, local: Path, **changes: Any) -> Path:
    file_system, root = Bucket("gs://downloads", {"endpoint_url": url}).connect()
    settings: dict[str, Any] = {
        "size": len(CONTENT),
        "checksum": MD5,
        "cancelled": threading.Event(),
    }
    name = changes.pop("name", "file.h5ad")
    return downloads.download(file_system, f"{root}/{name}", local, **(settings | changes))


@pytest.mark.parametrize(
    "known", [{}, {"checksum": CRC32C}, {"checksum": None}, {"checksum": None, "size": None}]
)
def test_a_file_arrives_whole_and_nothing_else_stays(
    gcs: GcsServer, tmp_path: Path, known: dict[str, None]
) -> None:
    n_bytes = []
    path = fetch(gcs.url, tmp_path / "local.h5ad", report_bytes=n_bytes.append, **known)
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]
    assert sum(n_bytes) == len(CONTENT)
    assert max(n_bytes) == 8192


def test_what_an_earlier_run_left_is_not_fetched_again(gcs: GcsServer, tmp_path: Path) -> None:
    (tmp_path / "local.h5ad.part").write_bytes(CONTENT[:70_000])
    n_bytes: list[int] = []
    path = fetch(gcs.url, tmp_path / "local.h5ad", report_bytes=n_bytes.append)
    assert path.read_bytes() == CONTENT
    assert sum(n_bytes) == 30_000
    fetch(gcs.url, path, report_bytes=n_bytes.append)
    assert sum(n_bytes) == 30_000


def test_a_whole_file_that_an_earlier_run_left_is_compared_before_it_is_used(
    gcs: GcsServer, tmp_path: Path
) -> None:
    (tmp_path / "local.h5ad").write_bytes(bytes(len(CONTENT)))  # as a power cut may leave it
    assert fetch(gcs.url, tmp_path / "local.h5ad").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"x" * 50_000, b"x" * 200_000], ids=["wrong", "too-long"])
def test_a_wrong_part_is_found_out_and_fetched_afresh(
    gcs: GcsServer, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / "local.h5ad.part").write_bytes(left)
    assert fetch(gcs.url, tmp_path / "local.h5ad").read_bytes() == CONTENT


def cut(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Promise the whole body, send half of it and hang up."""
    handler.send_response(206)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])


def refuse(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(503)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@pytest.mark.parametrize("fault", [cut, refuse, lambda *_: None], ids=["cut", "503", "hang-up"])
def test_errors_that_pass_are_retried(proxy: FaultProxy, tmp_path: Path, fault: Fault) -> None:
    proxy.fault = lambda *get: fault(*get) if proxy.n_gets in (2, 7) else get[1]
    assert fetch(proxy.url, tmp_path / "local.h5ad").read_bytes() == CONTENT


def test_short_bodies_are_completed(proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.fault = lambda _, body: body[: max(1, len(body) // 2)]
    assert fetch(proxy.url, tmp_path / "local.h5ad").read_bytes() == CONTENT


def test_a_corrupted_body_is_never_taken_for_the_file(proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.fault = lambda _, body: b"?" + body[1:]
    with pytest.raises(
        DownloadError, match=r"checksum md5:.*the catalog says.*refresh_catalog"
    ) as caught:
        fetch(proxy.url, tmp_path / "local.h5ad")
    assert caught.value.permanent
    assert not list(tmp_path.iterdir())


def test_an_object_that_changes_between_two_ranges_is_found_out(
    proxy: FaultProxy, gcs: GcsServer, tmp_path: Path
) -> None:
    gcs.put("downloads", "changing.h5ad", CONTENT)

    def replace(_: BaseHTTPRequestHandler, body: bytes) -> bytes:
        if proxy.n_gets == 3:
            gcs.put("downloads", "changing.h5ad", CONTENT[::-1])
        return body

    proxy.fault = replace
    with pytest.raises(DownloadError, match=r"replaced upstream.*refresh_catalog"):
        fetch(proxy.url, tmp_path / "local.h5ad", name="changing.h5ad")
    assert proxy.n_gets > 13  # it was fetched twice, the second time all of it new
    assert not list(tmp_path.iterdir())


def test_a_range_that_stalls_is_asked_for_again(
    proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "STALL_SECONDS", 0.5)
    with proxy.stall_at(3):
        assert fetch(proxy.url, tmp_path / "local.h5ad").read_bytes() == CONTENT


def test_a_stalled_download_is_cancelled_at_once(proxy: FaultProxy, tmp_path: Path) -> None:
    cancelled = threading.Event()
    with proxy.stall_at(3) as stalled:
        thread = threading.Thread(target=lambda: stalled.wait(30) and cancelled.set())
        thread.start()
        with pytest.raises(downloads.CancelledError):
            fetch(proxy.url, tmp_path / "local.h5ad", cancelled=cancelled)
        thread.join()
    assert (tmp_path / "local.h5ad.part").read_bytes() == CONTENT[: 2 * 8192]


def test_a_file_replaced_upstream_is_found_out(gcs: GcsServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"the catalog says 90000.*replaced upstream"):
        fetch(gcs.url, tmp_path / "local.h5ad", size=90_000)


def test_a_missing_file_is_permanent_and_reported_at_once(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError, match=r"none\.h5ad.*gone upstream") as caught:
        fetch(proxy.url, tmp_path / "local.h5ad", name="none.h5ad")
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError("Forbidden: https://storage"), "does not allow this reader"),
        (PermissionError("no"), "does not allow this reader"),
        (
            ValueError("Bucket is requester pays. Set `requester_pays=True`"),
            "billed for every byte",
        ),
    ],
)
def test_a_refusal_is_reported_at_once_with_what_to_do(
    tmp_path: Path, error: Exception, advice: str
) -> None:
    class Refusing:
        def cat_file(self, *_: Any, **__: Any) -> bytes:
            raise error

    with pytest.raises(DownloadError, match=advice) as caught:
        downloads.download(
            Refusing(), "x", tmp_path / "x", size=1, checksum=None, cancelled=threading.Event()
        )
    assert not caught.value.permanent  # the bucket's doing, not the file's


def test_a_server_that_stays_down_is_an_error_that_is_not_the_files_fault(
    gcs: GcsServer, tmp_path: Path
) -> None:
    class Down:
        def cat_file(self, *_: Any, **__: Any) -> bytes:
            raise ConnectionResetError("connection reset")

    with pytest.raises(DownloadError, match=r"6 attempts.*connection reset.*goes on") as caught:
        downloads.download(
            Down(), "x", tmp_path / "x", size=1, checksum=None, cancelled=threading.Event()
        )
    assert not caught.value.permanent


def test_a_cancelled_download_keeps_its_part(gcs: GcsServer, tmp_path: Path) -> None:
    cancelled = threading.Event()
    with pytest.raises(downloads.CancelledError):
        fetch(
            gcs.url,
            tmp_path / "local.h5ad",
            cancelled=cancelled,
            report_bytes=lambda _: cancelled.set(),
        )
    assert (tmp_path / "local.h5ad.part").read_bytes() == CONTENT[:8192]


def test_a_link_in_the_way_is_not_written_through(gcs: GcsServer, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "local.h5ad.part").symlink_to(victim)
    with pytest.raises(
        downloads.LocalDiskError, match=r"local\.h5ad\.part is a symbolic link.*remove"
    ):
        fetch(gcs.url, tmp_path / "local.h5ad")
    assert victim.read_bytes() == b"precious"


def test_a_link_in_the_files_own_place_is_not_taken_for_it(gcs: GcsServer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(len(CONTENT)))
    (tmp_path / "local.h5ad").symlink_to(other)
    assert fetch(gcs.url, tmp_path / "local.h5ad", checksum=None).read_bytes() == CONTENT
    assert not (tmp_path / "local.h5ad").is_symlink()
    assert other.read_bytes() == bytes(len(CONTENT))


def test_a_fault_of_the_local_disk_is_not_tried_again(gcs: GcsServer, tmp_path: Path) -> None:
    (tmp_path / "local.h5ad.part").mkdir()
    with pytest.raises(
        downloads.LocalDiskError, match=r"cannot write .*local\.h5ad\.part"
    ) as caught:
        fetch(gcs.url, tmp_path / "local.h5ad")
    assert caught.value.errno == errno.EISDIR
