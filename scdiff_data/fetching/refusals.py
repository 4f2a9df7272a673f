"""What a server's refusal means, and what to do about it."""

import logging
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from scdiff_data.errors import DownloadError

ADVICE = {
    400: "if the bucket is requester-pays, name who pays with source.storage_options="
    "{token: ..., requester_pays: PROJECT}: that project is billed for every byte",
    401: "name credentials with source.storage_options={token: ...}",
    403: "the bucket does not allow this reader: name credentials with "
    "source.storage_options={token: ...}, or check source.url",
    404: "the catalog lists it, but it is gone upstream: refresh_catalog=true takes a new catalog",
    407: "the proxy of the environment (HTTPS_PROXY) asks for a name and a password",
}
"""What to do about refusals, by their HTTP status: these are not tried again."""


@dataclass(frozen=True)
class Advice:
    """What to do where a file cannot be had; as it is, that of a source's files.

    Parameters
    ----------
    refusals
        By HTTP status; these are not tried again.
    promiser
        Who said which bytes the file has.
    if_other
        Why it may have others, and the way out.
    """

    refusals: Mapping[int, str] = field(default_factory=lambda: ADVICE)
    promiser: str = "the catalog"
    if_other: str = (
        "it was damaged on the way or replaced upstream (refresh_catalog=true takes a new catalog)"
    )


OF_BUCKETS = Advice(
    refusals={
        400: "if the bucket is requester-pays, name who pays with FSSPEC_GS_REQUESTER_PAYS=PROJECT",
        401: "log in, or name credentials in fsspec's configuration, such as FSSPEC_GS_TOKEN=FILE",
        403: "the bucket does not allow this user: log in as another one, or name credentials in "
        "fsspec's configuration, such as FSSPEC_GS_TOKEN=FILE",
        404: "it is not there",
        407: "the proxy of the environment (HTTPS_PROXY) asks for a name and a password",
    },
    promiser="the manifest",
    if_other="it was damaged in the bucket or on the way: delete it there, and call prepare with "
    "processed_url where the data were prepared, which sends it again",
)
"""What to do about a bucket of prepared data."""

_SECONDS = 5.0
"""In which a server must let itself be reached."""


def http_status(error: Exception) -> int:
    """The HTTP status behind an error of any fsspec file system, or 0."""
    if isinstance(error, FileNotFoundError):
        return 404
    # gcsfs tells some refusals by their text alone.
    if isinstance(error, PermissionError) or str(error).startswith("Forbidden"):
        return 403
    if "requester pays" in str(error).lower():
        return 400
    code = str(getattr(error, "status", None) or getattr(error, "code", ""))
    return int(code) if code.isdecimal() else 0


def check_reachable(url: str) -> None:
    """Say within seconds that there is no way to a server, rather than try again for long.

    Where a proxy is set in the environment, it alone may know the way: nothing is checked, nor is
    a url that does not name a web server.

    Raises
    ------
    DownloadError
        If the server's name is unknown here, or nothing answers at its port.
    """
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}
    if parts.hostname is None or parts.scheme not in usual:
        return
    if {parts.scheme, "all"} & urllib.request.getproxies().keys():
        return
    port = parts.port or usual[parts.scheme]
    try:
        socket.create_connection((parts.hostname, port), timeout=_SECONDS).close()
    except OSError as error:
        raise DownloadError(
            f"cannot reach {parts.hostname}:{port}: {error}; check the network, or name the way "
            "out of it with HTTPS_PROXY=http://HOST:PORT"
        ) from error


@contextmanager
def explain_refusals(url: str, refusals: Mapping[int, str] = ADVICE) -> Iterator[None]:
    """Make of what file systems raise while `url` is used a DownloadError that says what to do.

    What is missing stays a FileNotFoundError, and what is wrong with contents is untouched.
    """
    logger = logging.getLogger("gcsfs")  # it writes a traceback of each refusal
    logger.addFilter(_is_no_error)
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        status = http_status(error)
        if status in refusals:
            raise DownloadError(f"cannot read {url}: {error} ({refusals[status]})") from error
        if status or isinstance(error, OSError):
            what = str(error) or type(error).__name__
            raise DownloadError(
                f"cannot read {url}: {what}; once the server answers, run the same command"
            ) from error
        raise
    finally:
        logger.removeFilter(_is_no_error)


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR
