"""Where cells come from: a source answers the question which experiments there are.

The answer is the *catalog*, a table of one row an experiment:

    experiment_id   string   letters, digits, '.', '_', '-'
    path            string   the experiment's h5ad file, relative to the source's url
    n_cells         int64    cells in that file
    size            int64    bytes of that file, null where the source does not say
    checksum        string   `md5:HEX` or `crc32c:HEX` of that file, null likewise
    …               every metadata column that the source has

Nothing after the catalog knows which source it was. Paths are relative, so a mirror can stand in
for the bucket without changing a byte of what is made from it.
"""

import logging
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from scdiff_data.errors import CountError
from scdiff_data.fetching import check_reachable, connect, explain_refusals
from scdiff_data.reading import GeneAxis, H5adFile, merge_axes
from scdiff_data.sources.rows import CatalogRow
from scdiff_data.telling import Progress

logger = logging.getLogger(__name__)

_HERE = ("file://", "local://", "memory://")
"""Beginnings of urls that no server stands behind."""


@dataclass(frozen=True)
class Bucket:
    """An fsspec root that a catalog's paths are relative to.

    Parameters
    ----------
    url
        Any fsspec URL or a local folder.
    storage_options
        What fsspec passes to the file system. A `gs://` bucket is read anonymously unless a token
        is named here, and no billing project is ever sent unless one is named here.
    """

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def connect(self) -> tuple[Any, str]:
        """The fsspec file system, and the root's path in it without a trailing slash."""
        options = dict(self.storage_options)
        if self.url.startswith(("gs://", "gcs://")):
            options.setdefault("token", "anon")
        return connect(self.url, options)

    @contextmanager
    def explain_refusals(self) -> Iterator[None]:
        """Raise DownloadError with advice for what its server refuses, at once if out of reach."""
        if "://" not in self.url or self.url.startswith(_HERE):
            yield
            return
        with explain_refusals(self.url):
            file_system, _ = self.connect()
            check_reachable(str(getattr(file_system, "_location", self.url)))
            yield

    def open(self, path: str) -> Any:
        """A file of it, open for reading at any place; a context manager."""
        file_system, root = self.connect()
        return file_system.open(f"{root}/{path}", "rb")


def read_checksum(entry: Mapping[str, Any]) -> str | None:
    """Checksum of a listed object: CRC32C where there is one, since MD5 costs 20 times the time."""
    for kind, key in (("crc32c", "crc32c"), ("md5", "md5Hash")):
        if entry.get(key):
            return f"{kind}:{b64decode(entry[key]).hex()}"
    return None


@dataclass(frozen=True)
class FileLayout:
    """How a source's files are read, and what holds for them unless a recipe says otherwise.

    Parameters
    ----------
    counts
        Where counts lie, see `H5adFile`.
    gene_ids
        Column of `var` that holds gene ids; None takes its index.
    gene_axis
        `first`, `union`, `intersection`, or `source`: what its `read_gene_axis(bucket)` gives.
    max_failed_fraction
        See `Recipe`.
    experiment_key
        Column of the cells whose values are the experiments; None takes files for these.
    in_place
        Whether files on a local disk are read where they are.
    """

    counts: str = "X"
    gene_ids: str | None = None
    gene_axis: str = "first"
    max_failed_fraction: float = 0.1
    experiment_key: str | None = None
    in_place: bool = False


def layout_of(source: "Source") -> FileLayout:
    """A source's own layout; the usual one, if it has none."""
    layout = getattr(source, "layout", None)
    return layout if isinstance(layout, FileLayout) else FileLayout()


def read_gene_axis_of(source: "Source", bucket: Bucket) -> GeneAxis:
    """The genes that a source itself lists; a ValueError if it lists none."""
    read = getattr(source, "read_gene_axis", None)
    if read is None:
        raise ValueError(
            f"gene_axis=source, but {type(source).__name__} lists no genes: set first, union, "
            "intersection or a list"
        )
    with bucket.explain_refusals():
        axis: GeneAxis = read(bucket)
    return axis


def survey_genes(
    bucket: Bucket,
    rows: Mapping[str, CatalogRow],
    layout: FileLayout,
    *,
    take_all: bool,
    max_memory: int,
) -> GeneAxis:
    """The union or intersection of the genes of all files, see `merge_axes`.

    Parameters
    ----------
    bucket, layout
        Where the files are, and how they are read.
    rows
        The catalog's rows. A file that is gone, cannot be read, or has no genes, is passed over: it
        will be left out with its reason.
    take_all
        Whether genes that not all files have are taken, too.
    max_memory
        Bytes that a file's genes may take.

    Raises
    ------
    ValueError
        If the files do not agree on names, or have no gene in common.
    """
    named, problem = {}, "they have no genes"
    looked_at: set[str] = set()
    with Progress("genes", "files", len({row.path for row in rows.values()})) as progress:
        for row in rows.values():
            if row.columns.get("problem"):
                problem = str(row.columns["problem"])
                continue
            if row.path in looked_at:  # another experiment of the same file
                continue
            looked_at.add(row.path)
            name = Path(row.path)
            try:
                with (
                    bucket.open(row.path) as stream,
                    H5adFile(
                        name, layout.counts, layout.gene_ids, stream, max_memory=max_memory
                    ) as file,
                ):
                    if any((names := file.name_genes()).values()):
                        named[row.path] = names
            except (CountError, FileNotFoundError) as error:
                logger.debug("no genes of %s: %s", row.path, error)
                problem = str(error)
            progress.add()
    if not named:
        raise CountError(f"the genes of none of {len(rows)} files can be read: {problem}")
    return merge_axes(named, take_all=take_all)


class Source(Protocol):
    """What `prepare` needs of a source."""

    def settings(self) -> dict[str, Any]:
        """What identifies the data, as plain JSON values; changing it makes another data set."""
        ...

    def open(self, workdir: Path) -> Bucket:
        """Make the cells reachable; a source that makes its own files writes them in `workdir`."""
        ...

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """Read the catalog, one row an experiment; a large one may be a `RecordBatchReader`."""
        ...


@dataclass(frozen=True)
class ListedSource:
    """A source whose files an earlier run listed on a server, which is not asked again.

    Parameters
    ----------
    source
        The source.
    known
        What its `settings` gave then.
    """

    source: Source
    known: Mapping[str, Any]

    @property
    def layout(self) -> FileLayout:
        """The source's own."""
        return layout_of(self.source)

    def settings(self) -> dict[str, Any]:
        """The settings as they were."""
        return dict(self.known)

    def open(self, workdir: Path) -> Bucket:
        """As the source does."""
        return self.source.open(workdir)

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """As the source does."""
        return self.source.read_catalog(bucket)


@dataclass(frozen=True)
class StoredSource:
    """A source known by its settings alone: of a directory whose cells are all there.

    Parameters
    ----------
    known
        What the source's `settings` gave.
    """

    known: Mapping[str, Any]

    def __post_init__(self) -> None:
        if "source" not in self.known:
            raise ValueError(
                f"settings of a source name its kind, `source`, got {dict(self.known)}"
            )

    def __repr__(self) -> str:
        return f"StoredSource({self.known['source']!r})"  # settings may list many files

    def settings(self) -> dict[str, Any]:
        """The settings as they were."""
        return dict(self.known)

    def open(self, workdir: Path) -> Bucket:
        """Nothing to open: raises ValueError."""
        del workdir
        raise ValueError(
            f"{self!r} is known by its settings alone, and has no cells: give the source itself to "
            "prepare or to plan"
        )

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """Nothing to read: raises ValueError."""
        raise ValueError(f"{bucket} has no catalog of {self!r}")
