"""What was typed, and what stands in a file in its place, as the words that are read."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scdiff_data.command.mistakes import UsageError

_SYNONYMS = {"--force": "--replace"}
"""What earlier commands called arguments."""


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


def spell(arguments: Sequence[str]) -> list[str]:
    """Names as they are in Python: `_` for `-`."""
    spelt = []
    for word in arguments:
        if found := re.match(r"--[\w-]+", word):
            name = "--" + found[0][2:].replace("-", "_")
            word = _SYNONYMS.get(name, name) + word[found.end() :]
        spelt.append(word)
    return spelt


def _write_out(key: str, value: Any) -> list[str]:
    """A setting of a file as it would be typed."""
    if key == "source" and isinstance(value, Mapping):  # as LightningCLI or Hydra have it
        kind = value.get("class_path", value.get("_target_"))
        own = {k: v for k, v in value.items() if k not in ("class_path", "_target_", "init_args")}
        own |= value.get("init_args") or {}
        named = [] if kind is None else [f"--source={kind}"]
        return named + [word for k, v in own.items() for word in _write_out(f"source.{k}", v)]
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}"]
