"""The public names, and what importing them costs."""

import ast
import subprocess
import sys
from pathlib import Path

import scdiff_data

PACKAGE = Path(scdiff_data.__file__).parent


def test_all_names_exist_and_are_sorted() -> None:
    assert sorted(scdiff_data.__all__) == scdiff_data.__all__
    for name in scdiff_data.__all__:
        assert getattr(scdiff_data, name).__doc__, name


def test_the_designs_public_names_are_there() -> None:
    promised = {
        *("ScRNADataModule", "ScRNADataset", "HVGDataset", "CellBatch", "prepare", "collate"),
        *("create_dataloader", "create_hvg_dataloader", "TokenBatch"),
        *("ScBaseCount", "H5adFolder", "Pbmc", "SimulatedAtlas"),
        *("CountTokens", "LogBinTokens", "QuantileTokens", "RankTokens"),
        *("DownloadError", "CountError", "ManifestError"),
    }
    assert promised <= set(scdiff_data.__all__)


IMPORT_SCRIPT = """
import logging, sys
import scdiff_data

for name in scdiff_data.__all__:
    getattr(scdiff_data, name)
assert not logging.getLogger("scdiff_data").handlers
heavy = {"scanpy", "gcsfs", "sklearn"} & set(sys.modules)
assert not heavy, heavy
"""


def test_importing_configures_nothing_and_leaves_heavy_libraries_alone() -> None:
    subprocess.run([sys.executable, "-c", IMPORT_SCRIPT], check=True)


def test_no_module_of_the_package_knows_the_demo_model() -> None:
    below = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "diffusion"]
    for path in below:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert "diffusion" not in (node.module or ""), path.name
