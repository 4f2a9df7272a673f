"""Arguments of a command, from the signatures and docstrings of what it calls.

jsonargparse makes the arguments and checks their types. What is added here: names with `-` for `_`,
a flag without a value is true, a file of settings comes before what is typed, parameters that share
a line of a docstring share its text, and a mistake is told in one line.
"""

import inspect
import re
import textwrap
from argparse import Action, ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import docstring_parser
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from scdiff_data.command.mistakes import UsageError, explain
from scdiff_data.command.typed import spell

_WIDTH = 88
"""Letters of a line of help."""

_LONG_TYPE = 40
"""Letters of a type that is not shown."""


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
        words = self._name_values(spell(arguments))
        try:
            found = self.parser.parse_args(words, defaults=self._unnamed).as_dict()
        except ArgumentError as error:
            raise UsageError(explain(error, self.parser)) from error
        found.pop("config", None)
        return {**found, **{name: make(**found.get(name, {})) for name, make in self._made.items()}}

    def _name_values(self, words: Sequence[str]) -> list[str]:
        """Flags without a value get one."""
        following = [*words, ""][1:]
        return [
            f"{word}=true" if word in self._flags and after not in ("true", "false") else word
            for word, after in zip(words, following, strict=True)
        ]


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


def _to_plain(text: str) -> str:
    """A docstring's text for a terminal."""
    paragraphs = re.sub(r"`([^`]*)`", r"\1", text).split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(p.split()), _WIDTH) for p in paragraphs)


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
