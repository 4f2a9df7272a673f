"""A user's mistake, told in one short message in place of a traceback.

`HYDRA_FULL_ERROR=1` shows the traceback, as in any Hydra program.
"""

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from inspect import signature
from typing import Any

from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.utils import get_object
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from scdiff_data.errors import ScdiffDataError

_FULL_ERROR = "HYDRA_FULL_ERROR"
"""Hydra's variable of the environment: with 1 it hands on errors, and prints none."""

_OPEN = r"data\.(filters|exclude|cell_filters|source\.storage_options)[.=]"
"""Settings whose keys are the user's: names of columns, or of a file system's options."""

_OF_SETTINGS = ("scdiff_data", "lightning")
"""Packages whose ValueErrors are about settings; those of others may be faults of ours."""

_N_NEAR = 3
"""Near names that are told at most."""

_HYDRA_FLAGS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run"),
    *("--multirun", "--shell-completion", "--config-path", "--config-name", "--config-dir"),
    *("--experimental-rerun", "--info"),
)
"""Arguments with dashes that a Hydra program has."""

_IS_SHORT: ContextVar[bool] = ContextVar("is_short", default=False)
"""Whether this process tells mistakes in short."""


def open_settings(arguments: Sequence[str]) -> list[str]:
    """A command's arguments as Hydra takes them: keys of open settings need no `+`."""
    return [re.sub(f"^(?={_OPEN})", "++", argument) for argument in arguments]


def run_main(main: Callable[[], None]) -> None:
    """Run a Hydra main whose job is in `explain_mistakes`; so are mistakes of its settings."""
    sys.argv[1:] = open_settings(sys.argv[1:])
    if flags := [one for one in sys.argv[1:] if one.startswith("--") and not _is_hydras(one)]:
        name = flags[0].removeprefix("--").partition("=")[0].replace("-", "_")
        sys.exit(
            f"error: {flags[0]} is no option: settings stand without dashes, as in "
            f"data.{name}=… or model.{name}=… (--cfg job shows all)"
        )
    if os.environ.get(_FULL_ERROR) == "1":
        main()
        return
    os.environ[_FULL_ERROR] = "1"  # until the job begins
    _IS_SHORT.set(True)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        _exit_if_mistaken(error)
        raise


@contextmanager
def explain_mistakes() -> Iterator[None]:
    """End the process with a short message and 1 where what is done fails by a user's mistake."""
    if not _IS_SHORT.get():
        yield
        return
    os.environ.pop(_FULL_ERROR, None)  # Hydra shows other errors, and further ranks inherit nothing
    try:
        yield
    except Exception as error:
        _exit_if_mistaken(error)
        raise


def _is_hydras(flag: str) -> bool:
    """Whether Hydra has an argument, which may be cut short."""
    return any(known.startswith(flag.partition("=")[0]) for known in _HYDRA_FLAGS)


def _exit_if_mistaken(error: Exception) -> None:
    if (message := describe_mistake(error)) is not None:
        told = logging.LogRecord(__name__, logging.ERROR, __file__, 0, message, (), None)
        for handler in logging.root.handlers:  # the screen has it from the line below
            if isinstance(handler, logging.FileHandler):
                handler.handle(told)
        sys.exit(f"error: {message}")


def describe_mistake(error: BaseException) -> str | None:
    """What the user can mend, in a few words; None if the error is none of the user's."""
    message, cause = _describe(error), error.__cause__
    notes = [*getattr(error, "__notes__", []), *getattr(cause, "__notes__", [])]
    return None if message is None else "\n".join([message, *notes])


def _describe(error: BaseException) -> str | None:
    cause = error.__cause__
    if isinstance(error, InstantiationException) and isinstance(cause, Exception):
        return _describe_argument(error, cause)
    if isinstance(cause, OmegaConfBaseException) and "is not in struct" in str(cause):
        return _describe_key(cause)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value: add {error.full_key}=… to the command"
    if isinstance(error, OverrideParseException):
        return _describe_override(error.override.removeprefix("++"))
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        near = get_close_matches(name, error.options, 1)
        asked = f"did you mean {near[0]}? " if near else ""
        return f"{group}={name} is no choice: {asked}There are {', '.join(error.options)}"
    if "Config group override must be" in str(error):
        return "a group, as logger or model, takes a name; trainer.logger=false logs nothing"
    if isinstance(error, HydraException | OmegaConfBaseException | ScdiffDataError | OSError):
        return str(error)
    return str(error) if _is_of_settings(error) else None


def _is_of_settings(error: BaseException) -> bool:
    """Whether what was raised says what is wrong with a setting."""
    if not isinstance(error, ValueError):
        return isinstance(error, ImportError) or "Misconfiguration" in type(error).__name__
    return _find_package(error) in _OF_SETTINGS


def _find_package(error: BaseException) -> str:
    """Whose code raised it."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _describe_override(override: str) -> str:
    """What is wrong with an argument that cannot be parsed."""
    if "=" not in override:
        return f"{override} is no setting: give KEY=VALUE; what holds blanks needs quotes"
    if re.search(r"[{,]\s*['\"][^'\"]*['\"]\s*:", override):
        return f"{override} cannot be read: keys in braces stand without quotes"
    return (
        f"{override} cannot be read: quote what holds blanks, braces or brackets, as in "
        "'data.filters={tissue: [lung]}'"
    )


def _describe_argument(error: InstantiationException, cause: Exception) -> str | None:
    """What a constructor said of its arguments; None if it is no fault of theirs."""
    found = re.search(r"target '([\w.]+)'(?:.*full_key: ([\w.]+))?", str(error), re.DOTALL)
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(cause))
    key = "" if found is None else found[2] or ""
    if found is None or unknown is None:
        is_told = isinstance(cause, TypeError) and _find_package(cause) in (*_OF_SETTINGS, "hydra")
        is_told |= _describe(cause) is not None
        given = [one for one in sys.argv[1:] if one.lstrip("+").startswith(f"{key}.")]
        also = f" (given: {' '.join(given)})" if given else ""
        return f"{key}: {cause}{also}" if is_told else None
    known = [name for name in signature(get_object(found[1])).parameters if name != "self"]
    near = get_close_matches(unknown[1], known, _N_NEAR) or sorted(known)
    return f"{key}.{unknown[1]} is no setting: near are {', '.join(near)}"


def _describe_key(cause: Any) -> str:
    """That there is no such key, and which ones are near: beside it, or elsewhere by that name."""
    key, parent = str(cause.key), cause.parent_node
    full_key = str(cause.full_key)
    prefix = full_key.removesuffix(key)
    beside = [str(name) for name in parent if name != "hydra" and str(name)[0] != "_"]
    near = [prefix + name for name in get_close_matches(key, beside, _N_NEAR)]
    last = {name: name.rpartition(".")[2] for name in _list_keys(parent._get_root())}
    close = {key} if key in last.values() or near else {*get_close_matches(key, last.values())}
    near += [name for name in last if last[name] in close]
    shown = ["data/tokenizer" if n == "data.tokenizer" else n for n in dict.fromkeys(near)]
    if not shown:
        hint = f"{prefix.rstrip('.') or 'a job'} has {', '.join(sorted(beside)) or 'no keys'}"
    else:
        hint = f"did you mean {' or '.join(shown[:_N_NEAR])}?"
    return f"{full_key} is no setting: {hint} (--cfg job shows all)"


def _list_keys(config: Any, prefix: str = "") -> list[str]:
    """All keys of a composed job, in full."""
    found = []
    for name in config:
        if name == "hydra" or str(name).startswith("_"):
            continue
        found.append(f"{prefix}{name}")
        if OmegaConf.is_dict(node := config._get_node(name)):
            found += _list_keys(node, f"{prefix}{name}.")
    return found
