"""Sources that need no network: real cells that come with scanpy, and simulated ones.

Both write themselves, once, as a small bucket laid out as scBaseCount is, and are read from there
by the same code: `scbasecount/{release}/metadata/…/sample_metadata.parquet` and one gzip-compressed
CSC h5ad an experiment, with bare barcodes that collide between experiments.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiff_data.base import keyed_hash
from scdiff_data.offline.local_bucket import (
    Experiment,
    make_experiment,
    metadata_path,
    write_bucket,
)
from scdiff_data.sources import Bucket, ScBaseCount
from scdiff_data.telling import Progress

_N_TYPES = 8
"""Cell types of an atlas."""


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
    batch_sd
        Standard deviation of the log factor by which an experiment changes each gene; at 0 they
        differ in depth and in their cells' types alone.
    """

    n_experiments: int = 8
    n_cells: int = 500
    n_genes: int = 2000
    seed: int = 0
    batch_sd: float = 0.0

    def __post_init__(self) -> None:
        if self.n_experiments < 1 or self.n_cells < 1 or self.n_genes < 20:
            raise ValueError(
                "SimulatedAtlas needs n_experiments >= 1, n_cells >= 1 and n_genes >= 20, got "
                f"{self.n_experiments}, {self.n_cells} and {self.n_genes}"
            )
        if self.batch_sd < 0:
            raise ValueError(f"batch_sd must be at least 0, got {self.batch_sd}")

    def settings(self) -> dict[str, Any]:
        """The sizes and the seed."""
        return {
            "source": "simulated",
            "n_experiments": self.n_experiments,
            "n_cells": self.n_cells,
            "n_genes": self.n_genes,
            "seed": self.seed,
            **({"batch_sd": self.batch_sd} if self.batch_sd else {}),
        }

    def open(self, workdir: Path) -> Bucket:
        """Write the atlas below `workdir`, once for each choice of sizes and seed."""
        sizes = f"{self.n_experiments}x{self.n_cells}x{self.n_genes}-seed{self.seed}"
        sizes += f"-batch{self.batch_sd}" if self.batch_sd else ""
        bucket = workdir / f"simulated-{sizes}"
        layout = ScBaseCount(url=str(bucket))
        if not metadata_path(bucket, layout).exists():
            tissues = ["lung", " Lung", "blood", "not specified", "Brain", "", None]
            tissue = [tissues[i % len(tissues)] for i in range(self.n_experiments)]
            with Progress("simulate", "experiments", self.n_experiments) as progress:
                write_bucket(bucket, layout, self._simulate(progress), {"tissue": tissue})
        return layout.open(bucket)

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """Read the written bucket's catalog."""
        return ScBaseCount(url=bucket.url).read_catalog(bucket)

    def read_profiles(self) -> NDArray[np.float64]:
        """Each cell type's true share of the counts that a gene has, [types, genes].

        Types and genes are numbered as in their names, `type 0` and `ENSG00000000000`.
        """
        return self._draw_profiles(np.random.default_rng(self.seed))

    def _draw_profiles(self, rng: np.random.Generator) -> NDArray[np.float64]:
        shape = _N_TYPES, self.n_genes
        log_mean = rng.normal(0, 2, self.n_genes)
        log_fold = rng.normal(0, 1.5, shape) * (rng.random(shape) < 0.1)
        profiles = np.exp(log_mean + log_fold)
        shares: NDArray[np.float64] = profiles / profiles.sum(axis=1, keepdims=True)
        return shares

    def _simulate(self, progress: Progress) -> dict[str, Experiment]:
        rng = np.random.default_rng(self.seed)
        n_types, n_genes = _N_TYPES, self.n_genes
        profiles = self._draw_profiles(rng)
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
            own = np.random.default_rng([self.seed, number])  # one more stream: the others stay
            batch = profiles * np.exp(self.batch_sd * own.normal(size=n_genes))
            batch /= batch.sum(axis=1, keepdims=True)
            of_cells = (batch if self.batch_sd else profiles)[cell_type]
            counts = _draw_counts(rng, of_cells, shape, library)
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
            experiments[f"SRX{self.seed:03d}{number:05d}"] = make_experiment(
                matrix if number % 4 == 3 else matrix.tocsc(),
                obs=pd.DataFrame(
                    {"cell_type": labels}, index=[_barcode(c) for c in range(n_cells)]
                ),
                var=experiment_var,
            )
            progress.add()
        return experiments


def _draw_counts(
    rng: np.random.Generator,
    profiles_cg: NDArray[np.float64],
    shape_g: NDArray[np.float64],
    library_c: NDArray[np.float64],
) -> NDArray[np.float32]:
    mean_cg = profiles_cg * library_c[:, None]
    return rng.poisson(mean_cg * rng.gamma(shape_g, 1 / shape_g, mean_cg.shape)).astype(np.float32)


def _barcode(number: int) -> str:
    """The `number`-th of a fixed list of 16-letter barcodes, the same in every experiment."""
    bits = int(keyed_hash([str(number)], seed=0, purpose="barcode")[0])
    return "".join("ACGT"[(bits >> (2 * letter)) & 3] for letter in range(16))
