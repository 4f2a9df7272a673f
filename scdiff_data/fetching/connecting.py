"""A file system of fsspec's, with what its servers are asked for in any case."""

import os
from collections.abc import Mapping
from typing import Any

_TIMEOUT = 120
"""Seconds that one request to Google Cloud Storage may take."""

_EXTRAS = {"s3": "s3", "s3a": "s3"}
"""Of urls whose file system is no dependency, the extra of this package that brings it."""


def connect(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """The file system of a url, and its path there without a trailing slash.

    Parameters
    ----------
    url
        Any fsspec URL or a local folder.
    options
        What fsspec passes to the file system; what is not named, fsspec's own configuration says.

    Raises
    ------
    ValueError
        If there is no such kind of url, or what it needs is not installed.
    """
    import fsspec

    options = dict(options)
    kind = url.partition("://")[0] if "://" in url else "file"
    if kind in ("gs", "gcs"):
        # gcsfs otherwise asks a gRPC service about the bucket first, which needs credentials.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        options.setdefault("requests_timeout", _TIMEOUT)  # gcsfs itself waits for ever
        options.setdefault("session_kwargs", {"trust_env": True})  # HTTPS_PROXY and its like
    elif kind in ("http", "https"):
        options.setdefault("client_kwargs", {"trust_env": True})
    try:
        file_system, root = fsspec.url_to_fs(url, **options)
    except ImportError as error:
        extra = _EXTRAS.get(kind)
        way_out = f"pip install 'scdiff_data[{extra}]'" if extra else str(error)
        raise ValueError(f"{url} needs a file system that is not installed: {way_out}") from error
    return file_system, str(root).rstrip("/")
