"""Prepared data in a bucket, for tests."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fsspec

from scdiff_data import Manifest, prepare
from support.cases import PBMC_SETTINGS, pbmc_recipe

SMALL_SHARDS: dict[str, Any] = PBMC_SETTINGS | {"shard_size": 50}
"""The real cells in 14 shards."""


@contextmanager
def server_at(url: str) -> Iterator[None]:
    """Let `gs://` be a server of this machine, as a user's configuration of fsspec would."""
    options = {"endpoint_url": url, "token": "anon"}
    with (
        patch.dict(os.environ, {"FSSPEC_GS": json.dumps(options)}),  # of processes to come
        patch.dict(fsspec.config.conf, {"gs": options}),
    ):
        yield


def send_small_shards(folder: Path) -> Manifest:
    """Prepare the real cells in `folder / "own"`, and send them to `folder / "bucket"`."""
    recipe = pbmc_recipe(**SMALL_SHARDS)
    return prepare(recipe, folder / "own", processed_url=str(folder / "bucket"))


def count_shards(copy: Path) -> int:
    """Shards that are in a local copy by now."""
    return len(list((copy / "processed").glob("*.h5")))
