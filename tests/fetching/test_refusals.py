"""What a user reads when the first contact with a bucket fails."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scdiff_data import DownloadError, Recipe, ScBaseCount, plan
from scdiff_data.fetching import explain_refusals


@contextmanager
def serve(status: int, message: str = "") -> Iterator[tuple[str, list[str]]]:
    """A web server that answers everything so; gives its url and what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = f'{{"error": {{"code": {status}, "message": "{message}"}}}}'.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def read_catalog(folder: Path, **options: Any) -> None:
    plan(Recipe(source=ScBaseCount(storage_options=options)), folder)


@pytest.mark.parametrize(
    ("status", "message", "advice"),
    [
        (401, "Anonymous caller does not have access", "name credentials"),
        (403, "caller does not have storage.objects.list access", "check source.url"),
        (400, "Bucket is a requester pays bucket but no user project provided.", "name who pays"),
    ],
)
def test_a_refused_catalog_says_at_once_what_to_do_and_logs_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, message: str, advice: str
) -> None:
    began = time.monotonic()
    with serve(status, message) as (url, _), pytest.raises(DownloadError, match=advice) as caught:
        read_catalog(tmp_path, endpoint_url=url)
    assert "source.storage_options" in str(caught.value)
    assert time.monotonic() - began < 10
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_without_a_way_to_the_server_its_name_is_said_at_once(tmp_path: Path) -> None:
    with serve(200) as (url, _):
        pass  # nothing listens there any more
    with pytest.raises(DownloadError, match=r"cannot reach 127\.0\.0\.1:\d+: .*HTTPS_PROXY"):
        read_catalog(tmp_path, endpoint_url=url)


def test_the_proxy_of_the_environment_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serve(407, "who are you") as (url, asked):
        monkeypatch.setenv("HTTP_PROXY", url)
        with pytest.raises(DownloadError, match="asks for a name and a password"):
            read_catalog(tmp_path, endpoint_url="http://storage.invalid")
    assert asked
    assert all(path.startswith("http://storage.invalid/") for path in asked)


class BusyError(Exception):
    """As a file system tells that its server is not well."""

    code = 503


def test_a_server_that_is_not_well_is_told_from_contents_that_are_wrong() -> None:
    with pytest.raises(DownloadError, match="run the same command"), explain_refusals("gs://b"):
        raise BusyError
    with pytest.raises(ValueError, match="no column"), explain_refusals("gs://b"):
        raise ValueError("no column")
    with pytest.raises(FileNotFoundError), explain_refusals("gs://b"):
        raise FileNotFoundError("no catalog")
