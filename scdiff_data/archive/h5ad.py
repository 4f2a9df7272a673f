"""The frames of an h5ad file: its cells and genes, with clear errors where they cannot be read."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import pandas as pd

from scdiff_data.archive.gene_axis import GeneAxis
from scdiff_data.errors import CountError


def open_h5ad(path: Path) -> h5py.File:
    """Open a source file, or say that it is not HDF5."""
    try:
        return h5py.File(path)
    except OSError as error:
        if error.errno:  # this machine's fault, such as too many open files: not the file's
            raise
        raise CountError(f"{path.name} is not a readable h5ad file: {error}") from error


def read_frame(file: h5py.File, name: str) -> pd.DataFrame:
    """Read `obs` or `var`, in any encoding that anndata reads."""
    from anndata.io import read_elem

    if name not in file or "X" not in file:
        raise CountError(
            f"{Path(file.filename).name} is not an h5ad file: it has no {name} or no X"
        )
    if isinstance(file[name], h5py.Group):
        frame: pd.DataFrame = read_elem(file[name])
        return frame
    records = file[name][:]  # as anndata wrote frames before 0.7: the index first, texts as bytes
    table = pd.DataFrame(
        {
            field: [text.decode() if isinstance(text, bytes) else text for text in records[field]]
            for field in records.dtype.names
        }
    )
    return table.set_index(table.columns[0])


def read_gene_axis(source: Path) -> GeneAxis:
    """The gene axis of a source file."""
    with open_h5ad(source) as file:
        return GeneAxis.from_var(read_frame(file, "var"))


def read_genes(file: h5py.File, axis: GeneAxis) -> tuple[GeneAxis, Sequence[str]]:
    """The file's own gene axis and its genes' names; `axis` itself and its ids if it is that."""
    if isinstance(file.get("var"), h5py.Group) and axis.matches(file["var"]):
        return axis, axis.ids
    var = read_frame(file, "var")
    return GeneAxis.from_var(var), var.index.tolist()
