"""What is wrong with a command, in one line that says what would be right."""

import re
from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from difflib import get_close_matches

_KINDS = {
    "NoneType": "null",
    "Mapping": "a mapping",
    "Sequence": "a list",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}
"""What types are called in YAML."""

_FORMER = {
    "--data_dir": "the directory is the first argument, without a name",
    "--output_dir": "the directory is the first argument, without a name",
    "--resume": "the same command goes on where it was stopped",
}
"""Flags of `download.py` and `preprocess_hvgs.py` that have no argument, and what does it today."""


class UsageError(ValueError):
    """A command that cannot be understood: the text says why, and what would be."""


def explain(error: ArgumentError, parser: ArgumentParser) -> str:
    """What a parser found wrong, in one line.

    Parameters
    ----------
    error
        What it raised.
    parser
        The parser, whose arguments are looked through for what may have been meant.
    """
    said = str(error)
    if unknown := re.search(r"nrecognized arguments: (--[^\s=]+)", said):
        name = unknown[1].replace("-", "_").replace("__", "--", 1)
        former = f": {_FORMER[name]}" if name in _FORMER else ""
        return f"{unknown[1]} is no argument{former or suggest(unknown[1], _list_names(parser))}"
    if unknown := re.search(r"nrecognized arguments: (.*)", said):
        return f"{unknown[1]!r} is one argument too many: names begin with --"
    if lacking := re.search(r"required: ([^\n]+)|Key \"(\S+)\" is required", said):
        names = re.split(r",\s*", lacking[1] or lacking[2])
        typed = {action.dest: action.option_strings for action in parser._actions}
        shown = [f"--{name} …" if typed.get(name) else name.upper() for name in names]
        return f"{', '.join(shown)} is missing"
    if wrong := re.search(r"Parser key \"(\S+)\":", said):
        found = re.findall(r"Expected an? (.+?)(?:\. Got value|\n|$)", said)
        kinds = sorted({_name_kind(kind) for kind in found if "import path" not in kind})
        given = re.search(r"(?:Given|Got) value: ([^\n]*)", said)
        got = f", got {given[1]}" if given else ""
        takes = f"takes {' or '.join(kinds)}" if kinds else "cannot be that"
        return f"--{wrong[1]} {takes}{got}"
    return " ".join(said.split())


def suggest(word: str, known: Sequence[str]) -> str:
    """What may have been meant, as the end of a message."""
    near = get_close_matches(word, known, n=3, cutoff=0.6)
    return f": did you mean {' or '.join(near)}?" if near else "; --help lists those there are"


def _list_names(parser: ArgumentParser) -> list[str]:
    """The arguments that have names, as they are typed."""
    names = [name for action in parser._actions for name in action.option_strings]
    return [n for n in names if n.startswith("--") and not n.endswith(("+", ".help"))]


def _name_kind(kind: str) -> str:
    """What a type is called in YAML; of a choice, what there is to choose from."""
    if choices := re.search(r"Literal\[(.*)\]", kind):
        return ", ".join(re.findall(r"'([^']*)'", choices[1]))
    name = re.sub(r"<class '(.*)'>", r"\1", kind).split("[")[0].rpartition(".")[2]
    return _KINDS.get(name, name)
