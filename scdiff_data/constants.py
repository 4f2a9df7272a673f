"""What holds everywhere: the largest count, the splits in their order, where the scripts lie."""

from pathlib import Path

SPLITS = ("train", "val", "test")
"""The splits, in the order of their codes and of their rows in the shards."""

MAX_COUNT = 32_767
"""The largest count that int16 holds; larger ones are stored as it, and counted."""

_PACKAGE = Path(__file__).parent
"""Where this package lies."""

SCRIPTS = _PACKAGE / "scripts" if (_PACKAGE / "scripts").exists() else _PACKAGE.parent
"""Where train.py, evaluate.py and configs lie: beside the package in a checkout, else inside it."""
