"""An AnnData file, open for reading: its frames, and where its counts lie."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiff_data.errors import CountError
from scdiff_data.opening import ALLOWANCE, explain, open_hdf5
from scdiff_data.reading.counts_place import find_counts
from scdiff_data.reading.frames import Frame
from scdiff_data.reading.gene_axis import GeneAxis, strip_versions
from scdiff_data.reading.gene_names import name_genes

_VAR_OF_RAW = {"raw/X": "raw/var", "raw.X": "raw.var"}
"""Where the genes of `raw` are; before anndata 0.7, beside `X`."""


class H5adFile:
    """An AnnData file; a context manager.

    Parameters
    ----------
    path
        The file.
    counts
        Where its counts lie: `X`, `raw.X`, `layers/NAME`, or `auto`, the first of these that holds
        whole numbers.
    gene_ids
        Column of its `var` that holds gene ids; None takes the index.
    stream
        The file's bytes, where it is not on a local disk.
    max_memory
        Bytes that its cells' columns may take, its genes' likewise, and a read of anything else.

    Attributes
    ----------
    obs
        Its cells.

    Raises
    ------
    CountError
        If it is no AnnData file; where something is read, if it is outside of the file, or too
        large.
    """

    def __init__(
        self,
        path: Path,
        counts: str = "X",
        gene_ids: str | None = None,
        stream: Any = None,
        *,
        max_memory: int = ALLOWANCE,
    ) -> None:
        self.path = path
        self._counts, self._gene_ids = counts, gene_ids
        self._file = open_hdf5(path, stream, max_memory=max_memory)
        try:
            with explain(path, "obs, var, uns"):
                for name in ("obs", "var"):
                    if name not in self._file:
                        raise CountError(f"{path.name} is no AnnData file: it has no {name}")
                uns = self._file.get("uns")
                self._uns = uns if isinstance(uns, h5py.Group) else None
                self.obs = Frame(path, self._file["obs"], self._uns)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "H5adFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @cached_property
    def x(self) -> Any:
        """The element that holds its counts; a CountError if there is none."""
        with explain(self.path, self._counts):
            return self._file[find_counts(self._file, self._counts, self.path.name)]

    def read_genes(self, axis: GeneAxis | None = None) -> "tuple[GeneAxis, Sequence[str]]":
        """The file's own gene axis, and its genes' names as they are known on `axis`.

        Where the file is over `axis` itself, as nearly all of scBaseCount's are, that is `axis` and
        its ids. Else the names are those of its index or of a column, whichever `axis` knows most
        of.

        Raises
        ------
        CountError
            If its genes have no names, or numbers of rows for names.
        """
        with explain(self.path, "var"):
            var = self._find_var()
            is_plain = isinstance(var, h5py.Group) and self._gene_ids is None
            if axis is not None and is_plain and axis.matches(var):
                return axis, axis.ids
        names = self.name_genes()
        own = GeneAxis.from_var(self._var.set_axis(names["index"], axis="index"))
        if axis is None or len(names) == 1:
            return own, names["index"]
        return own, max(names.values(), key=axis.count_known)

    def name_genes(self) -> dict[str, list[str]]:
        """Every way in which the file names its genes, see `gene_names.name_genes`."""
        with explain(self.path, "var"):
            return name_genes(self._var, self.path.name, self._gene_ids)

    def mark_genes(self, wanted: str | Sequence[str]) -> NDArray[np.bool_]:
        """Genes with a name in a list, or one that begins with a text; a CountError if none."""
        ways = self.name_genes().values()
        if isinstance(wanted, str):
            marked = [[gene.startswith(wanted) for gene in names] for names in ways]
        else:
            known = set(strip_versions(wanted))
            marked = [[gene in known for gene in strip_versions(names)] for names in ways]
        found = np.array([any(ways) for ways in zip(*marked, strict=True)], bool)
        if not found.any():
            raise CountError(
                f"{self.path.name} has no gene of mito_genes={wanted!r}, which max_mito_pct needs: "
                "set mito_genes to what the symbols of these genes begin with, or to a list"
            )
        return found

    def _find_var(self) -> h5py.Group | h5py.Dataset:
        return self._file[_VAR_OF_RAW.get(self.x.name.strip("/"), "var")]

    @cached_property
    def _var(self) -> pd.DataFrame:
        with explain(self.path, "var"):
            return Frame(self.path, self._find_var(), self._uns).read_all()


def read_gene_axis(
    source: Path,
    counts: str = "X",
    gene_ids: str | None = None,
    *,
    max_memory: int = ALLOWANCE,
) -> GeneAxis:
    """The gene axis of a source file."""
    with H5adFile(source, counts, gene_ids, max_memory=max_memory) as file:
        return file.read_genes()[0]
