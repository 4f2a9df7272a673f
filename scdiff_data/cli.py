"""The command `scdiff-data`.

scdiff-data plan data/pbmc --source pbmc --cell_count 250
scdiff-data prepare data/mine --source my_files/ --n_hvgs 1000
scdiff-data info data/mine --png card.png
scdiff-data train data=scbasecount data.cell_count=100000 trainer=gpu

Most commands are functions of the package, see `command/`. `train` and `evaluate` are `python
train.py` and `python evaluate.py`: the scripts and their `configs/` stand beside the package in a
checkout, and inside it in an installation.
"""

import logging
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

from scdiff_data.constants import SCRIPTS
from scdiff_data.errors import ScdiffDataError

_FUNCTIONS = {
    "plan": "say what preparing would draw, fetch and store",
    "prepare": "make a directory of cells that training reads, or go on with one",
    "hvg": "choose the genes of a prepared directory again",
    "info": "show what a directory holds, and whether it is whole",
    "report": "write a page of pictures and tables about a directory, as HTML",
    "check": "compare every byte of a directory with what was written",
    "convert": "make the shards of a directory dense or compact",
    "generate": "make new cells with a trained model, as h5ad",
}
"""Commands that are functions, and what they are for."""

_SCRIPTS = {
    "train": "prepare cells, train a model on them, test it (settings as Hydra has them: a=b)",
    "evaluate": "score a checkpoint (settings as Hydra has them, such as ckpt_path=…)",
}
"""Commands that are scripts, for Hydra and for Lightning, which starts them once a rank."""

_COMPLETION = "completion"
"""Prints what makes a shell complete the others."""

_HELP = """usage: scdiff-data COMMAND …

From single-cell counts to training batches.

{commands}

scdiff-data COMMAND --help shows what it takes, with examples. Settings are those of Python, with --
before their names; --config FILE reads them from YAML. For a shell that completes them:
eval "$(scdiff-data completion bash)", after pip install shtab.
"""
"""What is said of the whole."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives 0, 1 after a mistake, 2 if it was not understood, 130 after Ctrl-C."""
    name, *words = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("-h", "--help", "help"):
        print(_HELP.format(commands=_list_commands()))
        return 0
    if name in _SCRIPTS:
        _run_script(name, *words)
    if name not in (*_FUNCTIONS, _COMPLETION):
        return _refuse(name)
    # What compiles: not for --help, and not for the scripts, which start anew.
    from scdiff_data.command import UsageError, find_command, print_completion

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        if name == _COMPLETION:
            print_completion(words[0] if words else "bash", _FUNCTIONS | _SCRIPTS)
        else:
            print(find_command(name)(words))
    except UsageError as error:
        print(f"scdiff-data {name}: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError, ImportError, ScdiffDataError) as error:
        print(f"scdiff-data: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # what was stopped has said how to go on
        return 130
    return 0


def _list_commands() -> str:
    return "\n".join(f"  {name:10} {text}" for name, text in (_FUNCTIONS | _SCRIPTS).items())


def _refuse(name: str) -> int:
    near = get_close_matches(name, [*_FUNCTIONS, *_SCRIPTS], n=1)
    meant = f": did you mean {near[0]}?" if near else ", which are:"
    said = f"scdiff-data: {name!r} is none of the commands{meant}" if name else "name a command:"
    print(said if near else f"{said}\n{_list_commands()}", file=sys.stderr)
    return 2


def _run_script(name: str, *arguments: str) -> NoReturn:
    """Become `python NAME.py`."""
    os.execv(sys.executable, [sys.executable, str(SCRIPTS / f"{name}.py"), *arguments])


if __name__ == "__main__":
    sys.exit(main())
