"""The genes of all files of a source, read before any cell is: the axis depends on no draw."""

import logging
from collections.abc import Mapping
from pathlib import Path

from scdiff_data.errors import CountError
from scdiff_data.reading import GeneAxis, H5adFile, merge_axes
from scdiff_data.sources.catalog import CatalogRow
from scdiff_data.sources.source import Bucket, FileLayout
from scdiff_data.telling import Progress

logger = logging.getLogger(__name__)


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
