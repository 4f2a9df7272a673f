"""An AnnData file, open for reading: its frames, and where its counts lie."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py

from scdiff_data.errors import CountError
from scdiff_data.reading.counts_place import find_counts
from scdiff_data.reading.faults import explain
from scdiff_data.reading.frames import Frame
from scdiff_data.reading.gene_axis import GeneAxis


class H5adFile:
    """An AnnData file; a context manager.

    Parameters
    ----------
    path
        The file.
    counts
        Where its counts lie: `X`, `raw.X`, `layers/NAME`, or `auto`, the first of these that holds
        whole numbers.

    Attributes
    ----------
    obs
        Its cells.
    x, x_name
        Its counts, and where they lie.

    Raises
    ------
    CountError
        If it is no AnnData file, or has no such element.
    """

    def __init__(self, path: Path, counts: str = "X") -> None:
        self.path = path
        self._file = open_hdf5(path)
        try:
            for name in ("obs", "var"):
                if name not in self._file:
                    raise CountError(f"{path.name} is no AnnData file: it has no {name}")
            with explain(path, counts):
                self.x_name = find_counts(self._file, counts)
                self.x: Any = self._file[self.x_name]
            uns = self._file.get("uns")
            self._uns = uns if isinstance(uns, h5py.Group) else None
            self.obs = Frame(self._file["obs"], self._uns)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "H5adFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read_genes(self, axis: GeneAxis | None = None) -> tuple[GeneAxis, Sequence[str]]:
        """The file's own gene axis and its genes' names; `axis` and its ids if it is that."""
        var = self._file[_VAR_OF_RAW.get(self.x_name, "var")]
        if axis is not None and isinstance(var, h5py.Group) and axis.matches(var):
            return axis, axis.ids
        with explain(self.path, "var"):
            frame = Frame(var, self._uns).read_all()
        return GeneAxis.from_var(frame), frame.index.tolist()


_VAR_OF_RAW = {"raw/X": "raw/var", "raw.X": "raw.var"}
"""Where the genes of `raw` are; before anndata 0.7, beside `X`."""


def open_hdf5(path: Path) -> h5py.File:
    """Open a file, or say that it is not HDF5."""
    try:
        return h5py.File(path)
    except OSError as error:
        if error.errno:  # this machine's fault, such as too many open files: not the file's
            raise
        raise CountError(f"{path.name} is not a readable h5ad file: {error}") from error


def read_gene_axis(source: Path, counts: str = "X") -> GeneAxis:
    """The gene axis of a source file."""
    with H5adFile(source, counts) as file:
        return file.read_genes()[0]
