"""The user's own files."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from scdiff_data.base import digest
from scdiff_data.errors import CountError
from scdiff_data.reading import check_place, convert_foreign
from scdiff_data.sources.collection import count_cells, make_catalog, make_row, name_unit
from scdiff_data.sources.own_files import OwnFile, Paths, find_files, is_local, name_experiment
from scdiff_data.sources.source import Bucket, FileLayout

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class H5adFolder:
    """The user's own files: each is an experiment named after its file.

    Parameters
    ----------
    path
        A file, a folder (looked through with its folders), a pattern with `*`, or a list of these;
        local, `~` being the home folder, or any fsspec URL. What begins with a dot is ignored. On a
        local disk also 10x `.h5`, folders of a 10x `matrix.mtx`, and AnnData `.zarr`.
    counts
        Where each file's raw counts lie: `X`, `raw.X`, `layers/NAME`, or `auto`, the first of these
        that holds whole numbers.
    gene_ids
        Column of `var` that holds gene ids; None takes its index.
    experiment_key
        Column of the cells: each of its values in a file is an experiment, `{file}.{value}`, whose
        value the catalog has as well. None makes each file one.
    storage_options
        Options for the file system of a URL, see `Bucket`.

    Raises
    ------
    ValueError
        If `counts` names no place.
    """

    path: Paths
    counts: str = "X"
    gene_ids: str | None = None
    experiment_key: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_place(self.counts)

    @property
    def layout(self) -> FileLayout:
        """How the files are read: their own genes count, and a file that cannot be read stops."""
        return FileLayout(
            counts=self.counts,
            gene_ids=self.gene_ids,
            gene_axis="union",
            max_failed_fraction=0.0,
            experiment_key=self.experiment_key,
            in_place=is_local(self.path),
        )

    @property
    def lists_remotely(self) -> bool:
        """Whether `settings` asks a server which files there are."""
        return not is_local(self.path)

    def settings(self) -> dict[str, Any]:
        """The files' names and what tells each from a changed one; not where they lie."""
        _, files, _ = find_files(self.path, dict(self.storage_options))
        listing = [(file.path, file.size, file.version) for file in files]
        own = {name: getattr(self, name) for name in ("counts", "gene_ids", "experiment_key")}
        changed = {k: v for k, v in own.items() if v != H5adFolder.__dataclass_fields__[k].default}
        return {"source": "h5ad_folder", "files": digest(listing), **changed}

    def open(self, workdir: Path) -> Bucket:
        """The files as they are; or where some are no h5ad, a folder of links and converted ones.

        Files are converted in `workdir`, each once, and stay there.
        """
        bucket, files, _ = find_files(self.path, dict(self.storage_options))
        if all(file.kind == "h5ad" for file in files):
            return bucket
        for file in files:
            source = Path(bucket.url) / file.path
            target = workdir / _place(file)
            for old in workdir.glob(f"{file.experiment_id}.{'[0-9a-f]' * 16}.h5ad"):
                if file.kind != "h5ad" and old != target:  # made of the file as it was
                    old.unlink()
            if file.kind != "h5ad" and not _is_made(target):
                with suppress(CountError):  # `read_catalog` says what is wrong with it
                    convert_foreign(source, target)
            elif file.kind == "h5ad" and not (target.exists() and target.samefile(source)):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                target.symlink_to(source)
        return Bucket(str(workdir.absolute()))

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """List the files, and read each one's number of cells; one that cannot be read has none.

        Raises
        ------
        FileNotFoundError
            If there is no h5ad file.
        """
        own, files, others = find_files(self.path, dict(self.storage_options))
        if others:
            logger.warning(
                "%d files are left out, since they are none of the kinds that are read: %s",
                len(others),
                ", ".join(others),
            )
        rows = []
        for file in files:
            path, said = _place(file), {"size": file.size}
            for unit, n, problem in self._count_cells(bucket, own, file):
                name = name_experiment(file.experiment_id, unit)
                row = make_row(name, path, n, said, version=file.version)
                row |= {"unit": unit, "problem": problem}
                rows.append(name_unit(row, self.experiment_key))
        return make_catalog(rows)

    def _count_cells(
        self, bucket: Bucket, own: Bucket, file: OwnFile
    ) -> list[tuple[str | None, int, str | None]]:
        target = Path(bucket.url) / _place(file)
        if file.kind != "h5ad" and not _is_made(target):
            try:
                convert_foreign(Path(own.url) / file.path, target)
            except CountError as error:
                return [(None, 0, str(error))]
        return count_cells(bucket, _place(file), self.experiment_key)


def _is_made(target: Path) -> bool:
    """Whether a file was converted already; a link in its place leads to something else."""
    return target.exists() and not target.is_symlink()


def _place(file: OwnFile) -> str:
    """Where a file, or what it was converted into, is in the bucket."""
    return file.path if file.kind == "h5ad" else file.converted
