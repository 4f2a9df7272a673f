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


def test_the_reading_order_names_every_file_once() -> None:
    named = [word for word in scdiff_data.__doc__.replace("`", " ").split() if word.endswith(".py")]
    assert named


IMPORT_SCRIPT = """
import logging, sys
import scdiff_data

assert not logging.getLogger("scdiff_data").handlers
heavy = {"scanpy", "gcsfs", "sklearn"} & set(sys.modules)
assert not heavy, heavy
"""


def test_importing_configures_nothing_and_leaves_heavy_libraries_alone() -> None:
    subprocess.run([sys.executable, "-c", IMPORT_SCRIPT], check=True)


def test_files_are_short_enough_to_read() -> None:
    long = {
        path.name: n_lines
        for path in PACKAGE.rglob("*.py")
        if (n_lines := len(path.read_text().splitlines())) > 300
    }
    assert not long


def test_no_module_of_the_package_knows_the_demo_model() -> None:
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert "diffusion" not in (node.module or ""), path.name
