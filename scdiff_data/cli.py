"""The command `scdiff-data`: what needs no training run.

scdiff-data hvg DATA_DIR --n-hvgs 3000 --min-cells-pct 0.05 --flavor seurat --force
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from scdiff_data.errors import ScdiffDataError
from scdiff_data.genes import FLAVORS
from scdiff_data.pipeline import choose_genes_again


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives 0, or 1 after a message on stderr."""
    parser = argparse.ArgumentParser(prog="scdiff-data", description="Prepared data directories.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_hvg(commands)
    parsed = vars(parser.parse_args(arguments))
    run = parsed.pop("run")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        run(**parsed)
    except (ValueError, OSError, ScdiffDataError) as error:
        print(f"scdiff-data: {error}", file=sys.stderr)
        return 1
    return 0


def _add_hvg(commands: Any) -> None:
    parser = commands.add_parser(
        "hvg",
        help="choose genes of a prepared directory by other settings",
        description="Choose genes of a prepared directory by other settings, and write its shards "
        "anew. Nothing is downloaded. What is not named stays as it is.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("data_dir", metavar="DATA_DIR")
    parser.add_argument("--n-hvgs", type=_whole_or_all, metavar="N", help="genes, or 'all'")
    parser.add_argument(
        "--min-cells-pct", type=float, metavar="PERCENT", help="of training cells: 0.1 is 0.1 %%"
    )
    parser.add_argument("--flavor", choices=FLAVORS)
    parser.add_argument("--normalize", action=argparse.BooleanOptionalAction)
    parser.add_argument("--batch-key", metavar="COLUMN", help="column of the catalog, or 'none'")
    parser.add_argument("--genes", metavar="FILE", help="an hvg_info.json, or one gene a line")
    parser.add_argument("--force", action="store_true", default=False, help="replace what is there")
    parser.set_defaults(run=_choose_genes)


def _whole_or_all(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number or 'all', got {text!r}") from None


def _choose_genes(data_dir: str, *, force: bool, **changes: Any) -> None:
    if changes.get("batch_key") == "none":
        changes["batch_key"] = None
    if changes:
        changes.setdefault("genes", None)  # settings of a choice: there is one to be made
    n_threads = os.cpu_count() or 1
    manifest = choose_genes_again(data_dir, replace=force, n_threads=n_threads, **changes)
    print(
        f"{manifest.genes.n_chosen:,} of {manifest.genes.n_reference:,} genes, "
        f"{sum(manifest.n_cells.values()):,} cells in {len(manifest.shards)} shards: "
        f"{manifest.data_dir}"
    )


if __name__ == "__main__":
    sys.exit(main())
