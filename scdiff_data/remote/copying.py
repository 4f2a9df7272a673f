"""A local copy of a bucket: all but its shards, which come when they are needed."""

import logging
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from scdiff_data.base import FileEntry, Workers, read_sealed, write_aside, write_sealed
from scdiff_data.errors import DownloadError, ManifestError
from scdiff_data.fetching import OF_BUCKETS, download
from scdiff_data.remote.bucket import PreparedBucket, list_sent, name_object, parse_index
from scdiff_data.store import (
    DataDirectory,
    Manifest,
    explain_faults,
    locked,
    mark_unfinished,
    refuse_strangers,
)
from scdiff_data.telling import Progress

logger = logging.getLogger(__name__)


def fetch_processed(
    processed_url: str, data_dir: str | Path, *, local_limit: int | None = None
) -> Manifest:
    """Make a directory a local copy of prepared data in a bucket, or find that it is one.

    What opens it needs no more; its shards come when they are first asked for, each once.

    Parameters
    ----------
    processed_url
        Where `prepare` sent the data: `gs://…`, `s3://…`, `file://…`.
    data_dir
        An empty folder on a local disk, or an earlier copy. All processes of a machine share it.
    local_limit
        Bytes that shards may take here, those on their way included: the least recently used ones
        leave. None keeps all.

    Raises
    ------
    FileNotFoundError
        If nothing was sent there.
    DownloadError
        If the bucket cannot be read.
    ValueError
        If the folder holds data of its own, or files of others under our names.
    """
    directory = DataDirectory(Path(data_dir))
    bucket = PreparedBucket(processed_url)
    manifest = take_copy(bucket, directory, local_limit, lambda _: True)
    if manifest is not None:
        return manifest
    index, known = bucket.read_index(), _read_known(directory)
    if index is None:
        raise FileNotFoundError(
            f"{processed_url} holds no prepared data: call prepare(recipe, data_dir, "
            f"processed_url={processed_url!r}), or run 'scdiff-data prepare' with --processed_url"
        )
    if known is None or known != parse_index(index, directory.path, bucket.url):
        raise ValueError(
            f"{data_dir} holds data of its own, not a copy of {processed_url}: set data_dir to an "
            "empty folder"
        )
    return known


def take_copy(
    bucket: PreparedBucket,
    directory: DataDirectory,
    local_limit: int | None,
    is_wanted: Callable[[Manifest], bool],
) -> Manifest | None:
    """Make a directory a copy of what the bucket holds, if that is wanted; else None.

    A directory with data of its own is left as it is: None, too.

    Parameters
    ----------
    bucket
        The bucket.
    directory
        The directory.
    local_limit
        As `fetch_processed` takes it.
    is_wanted
        Whether data of a manifest are.
    """
    if local_limit is not None and (not isinstance(local_limit, int) or local_limit < 1):
        raise ValueError(
            f"local_limit must be a whole number of bytes, at least 1, or null, got {local_limit!r}"
        )
    if bucket.is_local and Path(bucket.root).resolve() == directory.path.resolve():
        raise ValueError(
            f"{directory.path} is both data_dir and processed_url: set one to another folder"
        )
    known = _read_known(directory)
    try:
        index = bucket.read_index()
    except DownloadError as error:
        if known is None or not directory.bucket.exists() or not is_wanted(known):
            raise
        logger.warning("%s; what %s holds by now is used", error, directory.path)
        return known
    if index is None:
        return None
    manifest = parse_index(index, directory.path, bucket.url)
    has_own = not directory.bucket.exists() and (known or any(directory.archives.glob("*")))
    if has_own or not is_wanted(manifest):
        return None
    settings = {"url": bucket.url, "limit": local_limit, "index": sha256(index).hexdigest()}
    with explain_faults(directory.path), locked(directory):
        refuse_strangers(directory)
        known = _read_known(directory)
        is_same = known == manifest
        if not is_same:
            mark_unfinished(directory)
        write_sealed(directory.bucket, settings)
        _drop_shards(directory, known, manifest)
        _fetch(bucket, manifest)
        if not is_same or directory.manifest.read_bytes() != index:
            with write_aside(directory.manifest) as aside:
                aside.write_bytes(index)
    return manifest


def refuse_copy(directory: DataDirectory) -> None:
    """Raise ValueError if a directory is a local copy: nothing is made anew in it."""
    if directory.bucket.exists():
        url = read_sealed(directory.bucket)["url"]
        raise ValueError(
            f"{directory.path} is a local copy of {url}, in which nothing is prepared: prepare in "
            "a data_dir of its own, with processed_url and, to let the data there go, replace=True"
        )


def _read_known(directory: DataDirectory) -> Manifest | None:
    try:
        return Manifest.read(directory.path)
    except (FileNotFoundError, ManifestError):
        return None


def _drop_shards(directory: DataDirectory, known: Manifest | None, wanted: Manifest) -> None:
    """Delete shards that are not those of the bucket, as far as a manifest vouches for them."""
    kept = set(wanted.shard_entries) & set([] if known is None else known.shard_entries)
    paths = {directory.path / entry.path for entry in kept}
    for path in directory.find_shards() - paths:
        path.unlink(missing_ok=True)


def _fetch(bucket: PreparedBucket, manifest: Manifest) -> None:
    """Fetch all but the shards, as far as it is not here."""
    shards = set(manifest.shard_entries)
    files = [entry for entry in list_sent(manifest) if entry not in shards]
    with (
        Progress("fetch", "B", sum(entry.size for entry in files)) as progress,
        Workers(4) as workers,
    ):

        def fetch_one(entry: FileEntry) -> None:
            download(
                bucket.file_system,
                bucket.path(name_object(entry)),
                manifest.data_dir / entry.path,
                size=entry.size,
                checksum=f"sha256:{entry.sha256}",
                cancelled=threading.Event(),
                advice=OF_BUCKETS,
            )
            progress.add(entry.size)

        workers.map(fetch_one, files)
