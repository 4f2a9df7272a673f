"""Settings checked one by one, before any work starts."""

from collections.abc import Sequence
from typing import Any

CELL_COLUMNS = ("cell_id", "experiment_id", "archive_row", "total_counts", "n_genes")
"""What is known of every cell beside its labels."""

_OUR_NAMES = (
    *("split", "shard", "row"),  # columns of the table of cells
    *("counts", "tokens", "expression", "gene_ids"),  # what batches carry
)
"""Names that labels cannot have, since something of ours has them."""


def check_whole_numbers(values: dict[str, Any], least: int, *, or_none: bool = False) -> None:
    """Raise ValueError for what is no whole number of at least `least`."""
    for name, value in values.items():
        if value is None and or_none:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            null = " or null" if or_none and not least else ""
            raise ValueError(
                f"{name} must be a whole number of at least {least}{null}, got {value!r}"
            )


def check_labels(labels: Sequence[str], columns: Sequence[str]) -> None:
    """Raise ValueError for names that labels or split.by cannot have."""
    if clash := set(columns) & set(CELL_COLUMNS):
        raise ValueError(
            f"labels or split.by name {sorted(clash)}, which every cell carries already"
        )
    if clash := set(labels) & set(_OUR_NAMES):
        raise ValueError(
            f"labels name {sorted(clash)}, which tables and batches use for something else: rename "
            "the column in obs"
        )
    if twice := sorted({name for name in labels if list(labels).count(name) > 1}):
        raise ValueError(f"labels name {twice} twice")
    for name in labels:
        if not name or "/" in name or "\0" in name or not set(name) - {"."}:
            raise ValueError(
                f"labels name {name!r}: the name of a label is no empty text and has no slash, "
                "since files are divided by it: rename the column in obs"
            )
