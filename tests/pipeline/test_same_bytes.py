"""What is prepared does not depend on the Python, anndata or pandas that prepared it."""

import hashlib
from pathlib import Path

from scdiff_data import Recipe, ScBaseCount, prepare
from support.cases import ATLAS_SETTINGS, digest_tree

# Of the archives, statistics, chosen genes and shards, made first by Python 3.11 with anndata 0.12
# and pandas 2.3. Parquet files, pictures and gzip bytes are left out: pyarrow's, matplotlib's and
# zlib's releases differ in these. A change of format changes the digests, and says so here.
PBMC = "b0b0be4bcaee4bb8"
ATLAS = "818d34c567122632"


def digest(data_dir: Path) -> str:
    """SHA-256 of the names and contents of all files that no other library decides."""
    own = ("cells/", "statistics/", "processed/", "hvg_info.json", "metadata/experiments.json")
    files = {name: sha for name, sha in digest_tree(data_dir).items() if name.startswith(own)}
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]


def test_the_real_cells_are_the_same_bytes_everywhere(pbmc_dir: Path) -> None:
    assert digest(pbmc_dir) == PBMC


def test_a_simulated_atlas_is_the_same_bytes_everywhere(tmp_path: Path, atlas_bucket: Path) -> None:
    settings = ATLAS_SETTINGS | {"fallback_min_genes": 20}
    prepare(Recipe(source=ScBaseCount(url=str(atlas_bucket)), **settings), tmp_path)
    assert digest(tmp_path) == ATLAS
