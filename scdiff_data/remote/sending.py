"""A finished directory is sent to a bucket: what is there stays, the manifest comes last."""

import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from scdiff_data.base import FileEntry, Workers
from scdiff_data.errors import DownloadError
from scdiff_data.fetching import OF_BUCKETS, http_status, measure_checksum
from scdiff_data.remote.bucket import INDEX, PreparedBucket, list_sent, name_object
from scdiff_data.sources import read_checksum
from scdiff_data.store import Manifest
from scdiff_data.telling import Progress

_N_ATTEMPTS = 4
"""Attempts to send a file; file systems try each request several times by themselves."""


def send(manifest: Manifest, bucket: PreparedBucket, *, n_threads: int) -> None:
    """Send what training reads of a finished directory, so that the bucket holds the same.

    Killed at any moment, the same call goes on. Files of data that were there before leave once
    the new manifest is there: a run that reads them is told so.

    Parameters
    ----------
    manifest
        Of the directory.
    bucket
        Where it goes.
    n_threads
        Files sent at a time.

    Raises
    ------
    DownloadError
        If the bucket refuses it, or cannot be reached.
    ManifestError
        If a file of the directory is damaged.
    """
    there, sent = bucket.list_objects(), list_sent(manifest)
    missing = [entry for entry in sent if there.get(name_object(entry)) != entry.size]
    with (
        Progress("send", "B", sum(entry.size for entry in missing)) as progress,
        Workers(n_threads) as workers,
    ):

        def send_one(entry: FileEntry) -> None:
            manifest.check_file(entry, full=True)
            _put(bucket, manifest.data_dir / entry.path, name_object(entry))
            progress.add(entry.size)

        workers.map(send_one, missing)
    index = manifest.directory.manifest
    if bucket.read_index() != index.read_bytes():
        _put(bucket, index, INDEX)
    left = there.keys() - {name_object(entry) for entry in sent}
    if left:
        with bucket.explained():
            bucket.file_system.rm([bucket.path(name) for name in sorted(left)])


def _put(bucket: PreparedBucket, local: Path, name: str) -> None:
    """Put a file, whole or not at all, and compare its checksum where the bucket tells one."""
    failures = 0
    while True:
        try:
            _put_once(bucket, local, name)
            return
        except DownloadError:
            raise
        except Exception as error:  # every fsspec file system raises its own types
            status, failures = http_status(error), failures + 1
            if status in OF_BUCKETS.refusals or failures >= _N_ATTEMPTS:
                advice = OF_BUCKETS.refusals.get(
                    status, "once it answers, the same command goes on from here"
                )
                if status == 404:
                    advice = "make the bucket first"
                message = f"cannot write {bucket.url}/{name}: {error} ({advice})"
                raise DownloadError(message) from error
            time.sleep(0.5 * 2**failures * random.uniform(0.5, 1.0))


def _put_once(bucket: PreparedBucket, local: Path, name: str) -> None:
    file_system, path = bucket.file_system, bucket.path(name)
    if bucket.is_local:  # a server takes an object as a whole, a disk does not
        file_system.makedirs(path.rpartition("/")[0], exist_ok=True)
        file_system.put_file(str(local), f"{path}.part")
        Path(f"{path}.part").replace(path)
        return
    file_system.put_file(str(local), path)
    file_system.invalidate_cache()
    entry: dict[str, Any] = file_system.info(path)
    checksum = read_checksum(entry)
    own = None if checksum is None else measure_checksum(local, checksum.split(":")[0])
    if entry["size"] != local.stat().st_size or checksum != own:
        with suppress(FileNotFoundError):
            file_system.rm_file(path)
        raise OSError(f"it holds {entry['size']} bytes and checksum {checksum}, not what was sent")
