"""A small bucket on disk, laid out as scBaseCount is."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp

from scdiff_data.base import (
    write_aside,
    write_frame,
    write_hdf5,
    write_mappings,
    write_parquet,
    write_sparse,
)
from scdiff_data.sources import ScBaseCount


class Experiment(NamedTuple):
    """Cells as a file of scBaseCount holds them."""

    matrix: sp.spmatrix
    obs: pd.DataFrame
    var: pd.DataFrame


def make_experiment(matrix: sp.spmatrix, *, obs: pd.DataFrame, var: pd.DataFrame) -> Experiment:
    """An experiment with scBaseCount's own columns."""
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    obs["gene_count_Unique"] = np.diff(matrix.tocsr().indptr).astype(np.int64)
    obs["umi_count_Unique"] = totals.astype(np.float32)
    obs["cell_ontology_term_id"] = ""
    return Experiment(matrix.astype(np.float32), obs, var)


def write_bucket(
    root: Path,
    layout: ScBaseCount,
    experiments: dict[str, Experiment],
    columns: dict[str, list[Any]],
) -> None:
    """Write the experiments' files, and last the metadata that say the bucket is whole."""
    ids = list(experiments)
    for experiment_id, cells in experiments.items():
        cells.obs["SRX_accession"] = experiment_id
        with write_aside(_h5ad_path(root, layout, experiment_id)) as aside:
            _write_h5ad(aside, cells)
    n = len(ids)
    metadata = {
        "entrez_id": pa.array(range(n), pa.int64()),
        "srx_accession": ids,
        "file_path": [f"gs://moved-away/{experiment_id}.h5ad" for experiment_id in ids],
        "obs_count": pa.array([len(cells.obs) for cells in experiments.values()], pa.int64()),
        "lib_prep": ["10x_Genomics"] * n,
        "tech_10x": ["3_prime_gex"] * n,
        "cell_prep": ["single_cell"] * n,
        "organism": ["Homo sapiens"] * n,
        "disease": ["unsure"] * n,
    }
    write_parquet(metadata_path(root, layout), pa.table(metadata | columns))


def _write_h5ad(path: Path, cells: Experiment) -> None:
    with write_hdf5(path) as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_sparse(file, "X", cells.matrix, compression="gzip")
        write_frame(file, "obs", cells.obs, compression="gzip")
        write_frame(file, "var", cells.var, compression="gzip")
        write_mappings(file, ("obsm", "varm", "obsp", "varp", "layers", "uns"))


def metadata_path(root: Path, layout: ScBaseCount) -> Path:
    """Where the catalog of the bucket lies: written last, so it is there once all is."""
    return root / layout.folder("metadata") / "sample_metadata.parquet"


def _h5ad_path(root: Path, layout: ScBaseCount, experiment_id: str) -> Path:
    return root / layout.folder("h5ad") / f"{experiment_id}.h5ad"
