"""Arguments of a command, from the signatures and docstrings of what it calls.

jsonargparse makes the arguments and checks their types. What is added here: names with `-` for `_`,
a flag without a value is true, a file of settings comes before what is typed, parameters that share
a line of a docstring share its text, and a mistake is told in one line.
"""

import inspect
import json
import re
import textwrap
from argparse import Action, ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import docstring_parser
import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter

_WIDTH = 88
"""Letters of a line of help."""

_LONG_TYPE = 40
"""Letters of a type that is not shown."""

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

_SYNONYMS = {"--force": "--replace"}
"""What earlier commands called arguments."""


class UsageError(ValueError):
    """A command that cannot be understood: the text says why, and what would be."""


class _Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Lines of the description stay as they are, and types that few can read are left out."""

    def _expand_help(self, action: Action) -> str:
        shown = str(super()._expand_help(action))
        return re.sub(
            rf"\((required, )?type: .{{{_LONG_TYPE},}}?(, default: |\)$)", _shorten, shown
        )


class Arguments:
    """What a command takes; `add` each thing whose parameters these are, then `read`.

    Parameters
    ----------
    name
        The command.
    usage
        Its arguments in short.
    about
        What it does.
    examples
        Whole commands.
    """

    def __init__(self, name: str, usage: str, about: str, examples: Sequence[str]) -> None:
        shown = "\n".join(f"  {example}" for example in examples)
        self.parser = ArgumentParser(
            prog=f"scdiff-data {name}",
            usage=f"%(prog)s {usage}",
            description=_to_plain(about),
            epilog=f"for example:\n{shown}",
            formatter_class=_Formatter,
            exit_on_error=False,
            allow_abbrev=False,
            print_config=None,
        )
        self._flags: set[str] = set()
        self._made: dict[str, Callable[..., Any]] = {}
        self._unnamed = True  # whether defaults stand for what is not given

    def add(
        self,
        call: Callable[..., Any],
        *,
        texts: Mapping[str, str],
        skip: Collection[str] = (),
        under: str | None = None,
        about: str = "",
        default: Any = None,
    ) -> None:
        """Take the parameters of a class or a function.

        Parameters
        ----------
        call
            The class or function.
        texts
            What is said of each parameter, see `read_texts`.
        skip
            Parameters that are no arguments.
        under
            What stands before their names, with a dot; `read` then makes one of the class.
        about
            What is said of it as a whole.
        default
            Shown in place of their defaults, none of which is then taken.
        """
        is_class = isinstance(call, type)
        add = self.parser.add_class_arguments if is_class else self.parser.add_function_arguments
        add(call, under, skip=set(skip), fail_untyped=False)
        start = f"{under}." if under else ""
        parameters = inspect.signature(call).parameters
        if under is not None:
            self._made[under] = call
        for action in self.parser._actions:
            name = action.dest.removeprefix(start)
            if action.dest == under:
                action.help, action.metavar = _fit(about), "NAME"
            if action.dest == start + name and name in parameters and name not in skip:
                action.help = _fit(texts.get(name, ""))
                if parameters[name].annotation is bool:
                    self._flags.add(f"--{action.dest}")
                if default is not None:
                    action.default, self._unnamed = default, False

    def add_place(self, name: str, texts: Mapping[str, str]) -> None:
        """Take an argument by its place."""
        self.parser.add_argument(name, metavar=name.upper(), help=_fit(texts.get(name, "")))

    def add_named(
        self, name: str, metavar: str, text: str, *, required: bool = False, kind: type = str
    ) -> None:
        """Take an argument by its name."""
        self.parser.add_argument(
            f"--{name}", metavar=metavar, help=_fit(text), required=required, type=kind
        )

    def start_from(self, defaults: Mapping[str, Any]) -> None:
        """What holds for arguments that are not given; those that there are not raise KeyError."""
        self.parser.set_defaults(dict(defaults))

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Arguments by name.

        Raises
        ------
        UsageError
            If they cannot be understood.
        """
        words = self._name_values(_spell(arguments))
        try:
            found = self.parser.parse_args(words, defaults=self._unnamed).as_dict()
        except ArgumentError as error:
            raise UsageError(self._explain(error)) from error
        found.pop("config", None)
        return {**found, **{name: make(**found.get(name, {})) for name, make in self._made.items()}}

    def list_names(self) -> list[str]:
        """The arguments that have names, as they are typed."""
        names = [name for action in self.parser._actions for name in action.option_strings]
        return [n for n in names if n.startswith("--") and not n.endswith(("+", ".help"))]

    def _name_values(self, words: Sequence[str]) -> list[str]:
        """Flags without a value get one."""
        following = [*words, ""][1:]
        return [
            f"{word}=true" if word in self._flags and after not in ("true", "false") else word
            for word, after in zip(words, following, strict=True)
        ]

    def _explain(self, error: ArgumentError) -> str:
        """What is wrong, in one line."""
        said = str(error)
        if unknown := re.search(r"nrecognized arguments: (--[^\s=]+)", said):
            return f"{unknown[1]} is no argument{suggest(unknown[1], self.list_names())}"
        if unknown := re.search(r"nrecognized arguments: (.*)", said):
            return f"{unknown[1]!r} is one argument too many: names begin with --"
        if lacking := re.search(r"required: ([^\n]+)|Key \"(\S+)\" is required", said):
            names = re.split(r",\s*", lacking[1] or lacking[2])
            typed = {action.dest: action.option_strings for action in self.parser._actions}
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


def read_texts(*documented: Callable[..., Any]) -> dict[str, str]:
    """What docstrings say of each parameter, the first of them that says something.

    Parameters
    ----------
    documented
        Functions and classes; one line of theirs may name several parameters.
    """
    texts: dict[str, str] = {}
    for call in documented:
        for parameter in docstring_parser.parse(inspect.getdoc(call) or "").params:
            for name in parameter.arg_name.split(", "):
                texts.setdefault(name, parameter.description or "")
    return texts


def read_purpose(call: Callable[..., Any]) -> str:
    """What a docstring says before its first section."""
    return str(docstring_parser.parse(inspect.getdoc(call) or "").description or "")


def take_settings(arguments: Sequence[str]) -> list[str]:
    """Arguments with each `--config FILE` replaced by what the file says, before all others.

    Raises
    ------
    UsageError
        If a file cannot be read, or is no YAML of names and values.
    """
    named, rest = take_values(arguments, "--config")
    said: list[str] = []
    for name in named:
        try:
            content = yaml.safe_load(Path(name).read_text("utf-8")) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--config={name} cannot be read: {error}") from error
        except yaml.YAMLError as error:
            raise UsageError(
                f"--config={name} is no YAML: {' '.join(str(error).split())}"
            ) from error
        if not isinstance(content, dict):
            raise UsageError(f"--config={name} holds no names and values, such as n_hvgs: 1000")
        said += [word for key, value in content.items() for word in _write_out(str(key), value)]
    return [*said, *rest]


def take_values(arguments: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """The values that are given for a name, in their order, and the other arguments."""
    values, rest, words = [], [], iter(arguments)
    for word in words:
        if word == name:
            values.append(next(words, ""))
        elif word.startswith(f"{name}="):
            values.append(word.partition("=")[2])
        else:
            rest.append(word)
    return values, rest


def suggest(word: str, known: Sequence[str]) -> str:
    """What may have been meant, as the end of a message."""
    near = get_close_matches(word, known, n=3, cutoff=0.6)
    return f": did you mean {' or '.join(near)}?" if near else "; --help lists those there are"


def _write_out(key: str, value: Any) -> list[str]:
    """A setting of a file as it would be typed."""
    if key == "source" and isinstance(value, Mapping):  # as LightningCLI or Hydra have it
        kind = value.get("class_path", value.get("_target_"))
        own = {k: v for k, v in value.items() if k not in ("class_path", "_target_", "init_args")}
        own |= value.get("init_args") or {}
        named = [] if kind is None else [f"--source={kind}"]
        return named + [word for k, v in own.items() for word in _write_out(f"source.{k}", v)]
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}"]


def _spell(arguments: Sequence[str]) -> list[str]:
    """Names as they are in Python: `_` for `-`."""
    spelt = []
    for word in arguments:
        if found := re.match(r"--[\w-]+", word):
            name = "--" + found[0][2:].replace("-", "_")
            word = _SYNONYMS.get(name, name) + word[found.end() :]
        spelt.append(word)
    return spelt


def _to_plain(text: str) -> str:
    """A docstring's text for a terminal."""
    paragraphs = re.sub(r"`([^`]*)`", r"\1", text).split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(p.split()), _WIDTH) for p in paragraphs)


def _name_kind(kind: str) -> str:
    """What a type is called in YAML; of a choice, what there is to choose from."""
    if choices := re.search(r"Literal\[(.*)\]", kind):
        return ", ".join(re.findall(r"'([^']*)'", choices[1]))
    name = re.sub(r"<class '(.*)'>", r"\1", kind).split("[")[0].rpartition(".")[2]
    return _KINDS.get(name, name)


def _shorten(found: re.Match[str]) -> str:
    """What stands in place of a type, between what is around it."""
    needed, end = found[1] or "", found[2]
    if end == ")":
        return f"({needed.removesuffix(', ')})" if needed else ""
    return f"({needed}{end.removeprefix(', ')}"


def _fit(text: str) -> str:
    """A parameter's text for a terminal, where `None` is typed as null."""
    plain = re.sub(r"\bNone\b", "null", re.sub(r"`([^`]*)`", r"\1", " ".join(text.split())))
    return plain.replace("%", "percent")  # which argparse would take for a place
