"""What a run lost on the way from files to cells, as one table."""

from collections.abc import Mapping, Sequence
from typing import Any

_MOST_NAMED = 20
"""Experiments left out that are named one by one."""


def describe_losses(experiments: Sequence[Mapping[str, Any]]) -> str:
    """What became of the experiments tried and of their cells, as lines of text.

    Parameters
    ----------
    experiments
        The content of `experiments.json`.
    """

    def total(name: str) -> int:
        return sum(entry.get(name, 0) for entry in experiments)

    def widest(name: str) -> str:
        found = [(entry.get(name, 0), entry["experiment_id"]) for entry in experiments]
        n, experiment_id = max(found, default=(0, ""))
        return f"{n:,} at most, in {experiment_id}" if n else "0"

    left_out = [entry for entry in experiments if entry["status"] != "drawn"]
    in_files, passing, archived = map(total, ("n_cells_in_file", "n_cells_passing", "n_cells"))
    lines = [
        ("experiments tried", f"{len(experiments):,}"),
        ("left out", f"{len(left_out):,}"),
        *(("", f"{e['experiment_id']}: {e['reason']}") for e in left_out[:_MOST_NAMED]),
        *([("", f"… and {len(left_out) - _MOST_NAMED:,} more")] if left_out[_MOST_NAMED:] else []),
        ("cells in files", f"{in_files:,}"),
        ("failing QC", f"{in_files - passing:,}"),
        ("over the cap", f"{passing - archived:,}"),
        ("not drawn", f"{archived - total('n_cells_drawn'):,}"),
        ("drawn", f"{total('n_cells_drawn'):,}"),
        ("counts saturated", f"{total('n_saturated'):,}, stored as 32,767"),
        ("counts rounded", f"{total('n_rounded'):,}"),
        ("genes merged", widest("n_genes_duplicated")),
        ("genes unknown", widest("n_genes_unknown")),
        ("genes missing", widest("n_genes_missing")),
    ]
    return "\n".join(f"{name:18} {text}".rstrip() for name, text in lines)


def have_failed(experiments: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an experiment was left out because it could not be read."""
    return any(entry["status"] == "failed" for entry in experiments)
