"""What lies where in a data directory: the names that no other room spells.

config.json                      the manifest
hvg_info.json                    the genes chosen, and why
hvg_analysis.png                 the same as a picture
report.html                      a page about it all, where one was asked for
cells/{experiment_id}.h5ad       an experiment's archive
cells/{experiment_id}.json       what became of the experiment
statistics/{experiment_id}.npz   what its genes add up to
metadata/                        catalog.parquet, genes.parquet, cells.parquet, experiments.json
bucket.json                      of which bucket this is a local copy, whose shards come when needed
metadata/downloaded.json         what stages=download fetched for, until stages=process is done
processed/batch_0000.h5 …        the shards
ordering/                        rows on their way into the table of cells
sorting/                         cells on their way into shards, gone once these are written
making/                          what other processes make for a run, each try in its own folder
tokenizers/                      what tokenizers were fitted to
source/                          what a source that makes its own files wrote
downloads/                       source files on their way, and .part of them
.lock, .lock.held                held while something is written
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SHARD = re.compile(r"batch_\d{4,}\.h5(\.tmp)?")
"""Names of shards, and of those begun."""


@dataclass(frozen=True)
class DataDirectory:
    """The paths in a data directory; each is a place, whether or not something is there.

    Parameters
    ----------
    path
        The directory.
    """

    path: Path

    @property
    def manifest(self) -> Path:
        """What the directory holds and how it was made, written last."""
        return self.path / "config.json"

    @property
    def replaced(self) -> Path:
        """The manifest of what is being made anew, until that is done."""
        return self.metadata / "replaced.json"

    @property
    def downloaded(self) -> Path:
        """The settings that archives were made for alone, until the rest is made."""
        return self.metadata / "downloaded.json"

    @property
    def bucket(self) -> Path:
        """Of which bucket this is a local copy; there in no other directory."""
        return self.path / "bucket.json"

    @property
    def hvg_info(self) -> Path:
        """The genes chosen, and why."""
        return self.path / "hvg_info.json"

    @property
    def hvg_figure(self) -> Path:
        """The same as a picture."""
        return self.path / "hvg_analysis.png"

    @property
    def report(self) -> Path:
        """A page about the data, for readers; no part of them."""
        return self.path / "report.html"

    @property
    def metadata(self) -> Path:
        """The folder of the four tables."""
        return self.path / "metadata"

    @property
    def catalog(self) -> Path:
        """The catalog's snapshot."""
        return self.metadata / "catalog.parquet"

    @property
    def genes(self) -> Path:
        """The reference genes."""
        return self.metadata / "genes.parquet"

    @property
    def cells(self) -> Path:
        """The drawn cells, one row each."""
        return self.metadata / "cells.parquet"

    @property
    def experiments(self) -> Path:
        """What became of every experiment tried."""
        return self.metadata / "experiments.json"

    @property
    def archives(self) -> Path:
        """The folder of archives and records."""
        return self.path / "cells"

    def archive(self, experiment_id: str) -> Path:
        """An experiment's archive."""
        return self.archives / f"{experiment_id}.h5ad"

    def archives_of(self, experiment_ids: Iterable[str]) -> dict[str, Path]:
        """The archives of some experiments."""
        return {name: self.archive(name) for name in experiment_ids}

    def record(self, experiment_id: str) -> Path:
        """What became of an experiment."""
        return self.archives / f"{experiment_id}.json"

    def statistics(self, experiment_id: str) -> Path:
        """What an experiment's genes add up to."""
        return self.path / "statistics" / f"{experiment_id}.npz"

    @property
    def shards(self) -> Path:
        """The folder of the shards."""
        return self.path / "processed"

    def shard(self, number: int) -> Path:
        """Shard `number`, from 0 on."""
        return self.shards / f"batch_{number:04d}.h5"

    def find_shards(self) -> set[Path]:
        """The shards that are there, and what is left of those begun."""
        found = self.shards.glob("batch_*")
        return {path for path in found if _SHARD.fullmatch(path.name)}

    @property
    def ordering(self) -> Path:
        """The folder of rows on their way into the table of cells."""
        return self.path / "ordering"

    @property
    def sorting(self) -> Path:
        """The folder of cells on their way into shards."""
        return self.path / "sorting"

    @property
    def making(self) -> Path:
        """The folder of what other processes make for a run, gone with it."""
        return self.path / "making"

    @property
    def fits(self) -> Path:
        """The folder of what tokenizers were fitted to."""
        return self.path / "tokenizers"

    @property
    def source(self) -> Path:
        """The folder of a source that makes its own files."""
        return self.path / "source"

    @property
    def downloads(self) -> Path:
        """The folder of source files on their way."""
        return self.path / "downloads"

    @property
    def lock(self) -> Path:
        """Held while something is written."""
        return self.path / ".lock"

    @property
    def lock_file(self) -> Path:
        """There while something is written, on a file system that keeps no locks."""
        return self.path / ".lock.held"


def find_directory(data_dir: str | Path) -> DataDirectory:
    """A directory that should have been prepared; raises FileNotFoundError if there is none."""
    directory = DataDirectory(Path(data_dir))
    if not directory.path.is_dir():
        raise FileNotFoundError(f"{directory.path} is no directory: name one that was prepared")
    return directory
