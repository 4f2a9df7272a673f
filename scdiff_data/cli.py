"""The command `scdiff-data`.

scdiff-data hvg DATA_DIR --n-hvgs 3000 --min-cells-pct 0.05 --flavor seurat --force
scdiff-data convert DATA_DIR compact
scdiff-data check DATA_DIR
scdiff-data train data=scbasecount data.cell_count=100000 trainer=gpu
scdiff-data evaluate ckpt_path=runs/DATE/checkpoints/last.ckpt data=pbmc

The last two are `python train.py` and `python evaluate.py`: the scripts and their `configs/` stand
beside the package in a checkout, and inside it in an installation.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from scdiff_data.errors import ManifestError, ScdiffDataError

_SCRIPTS = {
    "train": "prepare cells, train a model on them, test it (Hydra overrides; --help lists them)",
    "evaluate": "score a checkpoint (Hydra overrides, such as ckpt_path=…)",
}
"""Commands that are scripts, for Hydra and for Lightning, which starts them once a rank."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives 0, or 1 after a message on stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in _SCRIPTS:
        _run_script(*arguments)
    parser = argparse.ArgumentParser(
        prog="scdiff-data", description="From single-cell counts to training batches."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, purpose in _SCRIPTS.items():
        commands.add_parser(name, help=purpose)
    _add_hvg(commands)
    _add_convert(commands)
    _add_check(commands)
    parsed = vars(parser.parse_args(arguments))
    run = parsed.pop("run")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        run(**parsed)
    except (ValueError, OSError, ScdiffDataError) as error:
        print(f"scdiff-data: {error}", file=sys.stderr)
        return 1
    return 0


def _run_script(name: str, *arguments: str) -> NoReturn:
    """Become `python NAME.py`."""
    package = Path(__file__).parent
    installed = package / "scripts" / f"{name}.py"
    script = installed if installed.exists() else package.parent / f"{name}.py"
    os.execv(sys.executable, [sys.executable, str(script), *arguments])


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
    parser.add_argument("--flavor", help="dispersion, seurat, cell_ranger or seurat_v3")
    parser.add_argument("--normalize", action=argparse.BooleanOptionalAction)
    parser.add_argument("--batch-key", metavar="COLUMN", help="column of the catalog, or 'none'")
    parser.add_argument("--genes", metavar="FILE", help="an hvg_info.json, or one gene a line")
    parser.add_argument("--force", action="store_true", default=False, help="replace what is there")
    parser.set_defaults(run=_choose_genes)


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="make dense shards compact, or compact ones dense",
        description="Make the shards of a prepared directory compact (only counts above 0: a sixth "
        "of the bytes at one in six), or dense. The counts stay exactly the same.",
    )
    parser.add_argument("data_dir", metavar="DATA_DIR")
    parser.add_argument("shard_format", metavar="FORMAT", help="dense or compact")
    parser.set_defaults(run=_convert)


def _add_check(commands: Any) -> None:
    parser = commands.add_parser(
        "check",
        help="compare every byte of a prepared directory with what was written",
        description="Read every file of a prepared directory and compare it with the checksum that "
        "was written down of it. Says what is damaged and what to do; exits with 1 if anything is.",
    )
    parser.add_argument("data_dir", metavar="DATA_DIR")
    parser.set_defaults(run=_check)


def _whole_or_all(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number or 'all', got {text!r}") from None


def _choose_genes(data_dir: str, *, force: bool, **changes: Any) -> None:
    from scdiff_data.pipeline import choose_genes_again  # what compiles: not for --help

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


def _convert(data_dir: str, shard_format: str) -> None:
    from scdiff_data.pipeline import convert_shards

    manifest = convert_shards(data_dir, shard_format, n_threads=os.cpu_count() or 1)
    n_bytes = sum(entry.size for entry in manifest.shard_entries)
    print(
        f"{len(manifest.shards)} {manifest.shard_format} shards, {n_bytes / 1e6:,.1f} MB: "
        f"{manifest.data_dir}"
    )


def _check(data_dir: str) -> None:
    from scdiff_data.pipeline import find_problems
    from scdiff_data.store import Manifest

    manifest = Manifest.read(data_dir)
    if problems := find_problems(manifest):
        raise ManifestError("\n".join(problems))
    n, n_bytes = len(manifest.files), sum(entry.size for entry in manifest.files)
    print(f"{n} files, {n_bytes / 1e6:,.1f} MB: all as they were written: {data_dir}")


if __name__ == "__main__":
    sys.exit(main())
