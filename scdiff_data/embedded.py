"""Sources that need no network: real cells that come with scanpy, and simulated ones.

Both write themselves, once, as a small bucket laid out as scBaseCount is, and are read from there
by the same code: `scbasecount/{release}/metadata/…/sample_metadata.parquet` and one gzip-compressed
CSC h5ad an experiment, with bare barcodes that collide between experiments.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiff_data.draw import keyed_hash
from scdiff_data.files import write_aside, write_parquet
from scdiff_data.sources import Bucket, ScBaseCount

if TYPE_CHECKING:
    from anndata import AnnData

_N_PBMC_EXPERIMENTS = 7


@dataclass(frozen=True)
class Pbmc:
    """700 real blood cells x 765 genes, embedded in scanpy's wheel (10x PBMC 68k, reduced).

    scanpy ships them as log1p of counts scaled to 10,000 a cell; `invert_normalization` gives the
    counts back exactly. Genes have symbols only, so the symbol is the gene id too. The labels are
    `cell_type` and `n_counts`, the cell's total over all the genes that were measured.

    Zheng et al., Nature Communications 8:14049, 2017, doi:10.1038/ncomms14049.
    """

    def settings(self) -> dict[str, Any]:
        """Nothing to choose."""
        return {"source": "pbmc"}

    def open(self, workdir: Path) -> Bucket:
        """Write the cells into `workdir` as a bucket of 7 experiments, once."""
        layout = ScBaseCount(url=str(workdir))
        if not _metadata_path(workdir, layout).exists():
            experiments = _read_pbmc()
            _write_bucket(workdir, layout, experiments, {"tissue": ["blood"] * len(experiments)})
        return layout.open(workdir)

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """Read the written bucket's catalog."""
        return ScBaseCount(url=bucket.url).read_catalog(bucket)


@dataclass(frozen=True)
class SimulatedAtlas:
    """Simulated experiments with the faults of real ones, for demos at scale, tests and benchmarks.

    Counts are negative binomial around cell-type profiles, with library sizes from 500 to 50,000
    that differ between experiments. Of the experiments, the last is empty and the one before it
    junk (no cell passes QC), if there are at least four; every third has its genes in another
    order, with version suffixes; every fourth is stored as CSR; metadata are dirty; one count
    exceeds int16.

    Parameters
    ----------
    n_experiments
        Number of experiments, at least 1.
    n_cells
        Cells in each but the empty one.
    n_genes
        Genes, at least 20.
    seed
        Seed of everything drawn.
    """

    n_experiments: int = 8
    n_cells: int = 500
    n_genes: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_experiments < 1 or self.n_cells < 1 or self.n_genes < 20:
            raise ValueError(
                "SimulatedAtlas needs n_experiments >= 1, n_cells >= 1 and n_genes >= 20, got "
                f"{self.n_experiments}, {self.n_cells} and {self.n_genes}"
            )

    def settings(self) -> dict[str, Any]:
        """The sizes and the seed."""
        return {
            "source": "simulated",
            "n_experiments": self.n_experiments,
            "n_cells": self.n_cells,
            "n_genes": self.n_genes,
            "seed": self.seed,
        }

    def open(self, workdir: Path) -> Bucket:
        """Write the atlas below `workdir`, once for each choice of sizes and seed."""
        sizes = f"{self.n_experiments}x{self.n_cells}x{self.n_genes}-seed{self.seed}"
        bucket = workdir / f"simulated-{sizes}"
        layout = ScBaseCount(url=str(bucket))
        if not _metadata_path(bucket, layout).exists():
            tissues = ["lung", " Lung", "blood", "not specified", "Brain", "", None]
            tissue = [tissues[i % len(tissues)] for i in range(self.n_experiments)]
            _write_bucket(bucket, layout, self._simulate(), {"tissue": tissue})
        return layout.open(bucket)

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """Read the written bucket's catalog."""
        return ScBaseCount(url=bucket.url).read_catalog(bucket)

    def _simulate(self) -> dict[str, "AnnData"]:
        rng = np.random.default_rng(self.seed)
        n_types, n_genes = 8, self.n_genes
        log_mean = rng.normal(0, 2, n_genes)
        log_fold = rng.normal(0, 1.5, (n_types, n_genes)) * (rng.random((n_types, n_genes)) < 0.1)
        profiles = np.exp(log_mean + log_fold)
        profiles /= profiles.sum(axis=1, keepdims=True)
        shape = rng.uniform(0.5, 5, n_genes)  # of the gamma: the variance is mean + mean² / shape
        var = pd.DataFrame(
            {"gene_symbols": [f"GENE{gene % (n_genes - 5)}" for gene in range(n_genes)]},
            index=[f"ENSG{gene:011d}" for gene in range(n_genes)],
        )
        experiments = {}
        for number in range(self.n_experiments):
            n_cells, depth = self.n_cells, np.exp(rng.uniform(np.log(1500), np.log(15000)))
            if self.n_experiments >= 4 and number == self.n_experiments - 1:
                n_cells = 0
            elif self.n_experiments >= 4 and number == self.n_experiments - 2:
                depth = 0.0
            cell_type = rng.choice(n_types, size=n_cells, p=rng.dirichlet(np.ones(n_types)))
            library = np.clip(rng.lognormal(np.log(depth or 1), 0.5, n_cells), 500, 50_000)
            library = np.where(depth > 0, library, 20.0)
            counts = _draw_counts(rng, profiles[cell_type], shape, library)
            if number == 0:
                counts[0, n_genes // 2] = 40_000
            labels = np.array([f"type {t}" for t in range(n_types)])[cell_type]
            labels[rng.random(n_cells) < 0.02] = ""
            order = rng.permutation(n_genes) if number % 3 == 2 else np.arange(n_genes)
            experiment_var = var.iloc[order]
            if number % 3 == 2:
                experiment_var = experiment_var.set_axis(
                    [f"{g}.{number}" for g in experiment_var.index]
                )
            matrix = sp.csr_matrix(counts[:, order])
            experiments[f"SRX{self.seed:03d}{number:05d}"] = _experiment(
                matrix if number % 4 == 3 else matrix.tocsc(),
                obs=pd.DataFrame(
                    {"cell_type": labels}, index=[_barcode(c) for c in range(n_cells)]
                ),
                var=experiment_var,
            )
        return experiments


def invert_normalization(normalized: sp.csr_matrix) -> tuple[sp.csr_matrix, NDArray[np.float64]]:
    """Counts behind log1p of counts scaled to a fixed total a cell.

    In each cell the smallest non-zero value must stand for one count. Dividing by it gives nearly
    whole numbers; a least-squares fit of the scale to the rounded numbers, repeated, removes the
    error that rounding the logarithms brought in.

    Parameters
    ----------
    normalized
        [n_cells, n_genes], non-negative.

    Returns
    -------
    counts
        float32 of whole numbers, the same shape.
    scale
        What one count of each cell is in normalised units, [n_cells].

    Raises
    ------
    ValueError
        If any value is further than 0.05 from a whole number of counts: then the matrix is not what
        it was taken for.
    """
    counts = normalized.astype(np.float64, copy=True)
    counts.data = np.expm1(counts.data)
    scale = np.ones(counts.shape[0])
    for cell, (start, end) in enumerate(zip(counts.indptr[:-1], counts.indptr[1:], strict=True)):
        if start == end:
            continue
        value = counts.data[start:end]
        one = value.min()
        for _ in range(10):
            whole = np.rint(value / one)
            one = value @ whole / (whole @ whole)
        error = np.abs(value / one - whole).max()
        if error > 0.05:
            raise ValueError(
                f"cell {cell} is not log1p of scaled counts: {error:.3f} from whole numbers"
            )
        counts.data[start:end] = whole
        scale[cell] = one
    return counts.astype(np.float32), scale


def _read_pbmc() -> dict[str, "AnnData"]:
    import scanpy as sc

    cells = sc.datasets.pbmc68k_reduced()
    counts, scale = invert_normalization(sp.csr_matrix(cells.raw.X))
    n_counts = np.rint(cells.obs["n_counts"].to_numpy()).astype(np.int64)
    error = np.abs(1e4 / scale / n_counts - 1).max()
    if error > 0.0004:  # an independent proof of the inversion: the totals that the authors noted
        raise ValueError(f"scanpy's PBMC cells do not invert: totals are off by {error:.2%}")
    obs = pd.DataFrame(
        {"cell_type": cells.obs["bulk_labels"].astype(str).to_numpy(), "n_counts": n_counts},
        index=[barcode.split("-")[0] for barcode in cells.obs_names],
    )
    var = pd.DataFrame({"gene_symbols": cells.raw.var_names}, index=cells.raw.var_names)
    groups = np.array_split(np.arange(cells.n_obs), _N_PBMC_EXPERIMENTS)
    return {
        f"PBMC{number:02d}": _experiment(counts[rows].tocsc(), obs=obs.iloc[rows].copy(), var=var)
        for number, rows in enumerate(groups, start=1)
    }


def _draw_counts(
    rng: np.random.Generator,
    profiles_cg: NDArray[np.float64],
    shape_g: NDArray[np.float64],
    library_c: NDArray[np.float64],
) -> NDArray[np.float32]:
    mean_cg = profiles_cg * library_c[:, None]
    return rng.poisson(mean_cg * rng.gamma(shape_g, 1 / shape_g, mean_cg.shape)).astype(np.float32)


def _experiment(matrix: sp.spmatrix, *, obs: pd.DataFrame, var: pd.DataFrame) -> "AnnData":
    """An experiment with scBaseCount's own columns."""
    from anndata import AnnData

    totals = np.asarray(matrix.sum(axis=1)).ravel()
    obs["gene_count_Unique"] = np.diff(matrix.tocsr().indptr).astype(np.int64)
    obs["umi_count_Unique"] = totals.astype(np.float32)
    obs["cell_ontology_term_id"] = ""
    return AnnData(X=matrix.astype(np.float32), obs=obs, var=var.copy())


def _write_bucket(
    root: Path,
    layout: ScBaseCount,
    experiments: dict[str, "AnnData"],
    columns: dict[str, list[Any]],
) -> None:
    """Write the experiments' files, and last the metadata that say the bucket is whole."""
    ids = list(experiments)
    for experiment_id, cells in experiments.items():
        cells.obs["SRX_accession"] = experiment_id
        with write_aside(_h5ad_path(root, layout, experiment_id)) as aside:
            cells.write_h5ad(aside, compression="gzip", convert_strings_to_categoricals=False)
    n = len(ids)
    metadata = {
        "entrez_id": pa.array(range(n), pa.int64()),
        "srx_accession": ids,
        "file_path": [f"gs://moved-away/{experiment_id}.h5ad" for experiment_id in ids],
        "obs_count": pa.array([cells.n_obs for cells in experiments.values()], pa.int64()),
        "lib_prep": ["10x_Genomics"] * n,
        "tech_10x": ["3_prime_gex"] * n,
        "cell_prep": ["single_cell"] * n,
        "organism": ["Homo sapiens"] * n,
        "disease": ["unsure"] * n,
    }
    write_parquet(_metadata_path(root, layout), pa.table(metadata | columns))


def _metadata_path(root: Path, layout: ScBaseCount) -> Path:
    return root / layout.folder("metadata") / "sample_metadata.parquet"


def _h5ad_path(root: Path, layout: ScBaseCount, experiment_id: str) -> Path:
    return root / layout.folder("h5ad") / f"{experiment_id}.h5ad"


def _barcode(number: int) -> str:
    """The `number`-th of a fixed list of 16-letter barcodes, the same in every experiment."""
    bits = int(keyed_hash([str(number)], seed=0, purpose="barcode")[0])
    return "".join("ACGT"[(bits >> (2 * letter)) & 3] for letter in range(16))
