"""The commands: what each calls, what it takes, and examples of it."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any

from scdiff_data.command.arguments import Arguments, read_purpose, read_texts
from scdiff_data.command.mistakes import UsageError, suggest
from scdiff_data.command.starts import find_start, list_starts
from scdiff_data.command.typed import take_settings, take_values
from scdiff_data.command.work import (
    load_demo_model,
    run_check,
    run_convert,
    run_generate,
    run_hvg,
    run_info,
    run_plan,
    run_prepare,
    run_report,
)
from scdiff_data.executors import ENGINES
from scdiff_data.genes import GeneSettings
from scdiff_data.pipeline import (
    check_data_dir,
    choose_genes_again,
    convert_shards,
    plan,
    prepare,
)
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.reporting import describe, write_data_report

_GENE_SETTINGS = [field.name for field in fields(GeneSettings)]
"""Settings of a choice of genes."""


Take = Callable[[Arguments, Callable[..., Any], list[str]], list[str]]
"""Adds the arguments of what is called; gives the words that are left to be read as these."""


@dataclass(frozen=True)
class Command:
    """A command.

    Parameters
    ----------
    name
        What it is called.
    usage
        Its arguments in short.
    calls
        Gives the function that it calls, whose docstring says what it does.
    take
        See `Take`.
    run
        Does it with the arguments by name; gives what to print.
    examples
        Whole commands.
    """

    name: str
    usage: str
    calls: Callable[[], Callable[..., Any]]
    take: Take
    run: Callable[..., str]
    examples: tuple[str, ...]

    def read(self, words: Sequence[str]) -> tuple[Arguments, list[str]]:
        """The arguments that it takes, and the words that are to be read as these."""
        call = self.calls()
        arguments = Arguments(self.name, self.usage, read_purpose(call), self.examples)
        left = self.take(arguments, call, take_settings(words))
        arguments.add_named("config", "FILE", "settings as YAML; what is typed goes before them")
        return arguments, left

    def __call__(self, words: Sequence[str]) -> str:
        """Run it with what was typed; gives what to print."""
        arguments, left = self.read(words)
        return self.run(**arguments.read(left))


def find_command(name: str) -> Command:
    """A command by its name."""
    return next(command for command in _COMMANDS if command.name == name)


def print_completion(shell: str, purposes: Mapping[str, str]) -> None:
    """Print a script that completes commands and their arguments in a shell.

    Parameters
    ----------
    shell
        `bash`, `zsh` or `tcsh`.
    purposes
        What each command is for.
    """
    try:
        import shtab
    except ImportError as error:
        raise UsageError("completion is made by shtab: pip install shtab") from error
    if shell not in shtab.SUPPORTED_SHELLS:
        known = ", ".join(shtab.SUPPORTED_SHELLS)
        raise UsageError(f"scripts are made for {known}, not for {shell}")
    parser = argparse.ArgumentParser(prog="scdiff-data")
    commands = parser.add_subparsers()
    takers = {command.name: command for command in _COMMANDS if command.name != "generate"}
    for name, purpose in purposes.items():
        filled = commands.add_parser(name, help=purpose, add_help=False)
        if name in takers:  # those of `generate` take torch to know, those of scripts Hydra
            for action in takers[name].read(())[0].parser._actions:
                filled._add_action(action)
    print(shtab.complete(parser, shell))


def _take_recipe(arguments: Arguments, call: Callable[..., Any], words: list[str]) -> list[str]:
    """A recipe, a directory, and how it is done."""
    named, words = take_values(words, "--source")
    texts = read_texts(PrepareOptions, Recipe, call)
    arguments.add_place("data_dir", texts)
    names = ", ".join(list_starts())
    about = (
        f"where cells come from: {names}, with the settings of configs/data; or a path of your own "
        "files; or a class of a source. Its own settings follow a dot, and are shown by --source "
        "NAME --help"
    )
    words = _take_executor(arguments, call, words, texts)
    start = find_start(named[-1]) if named else None
    if start is None:
        if any(word.startswith("--source.") for word in words):
            raise UsageError("--source … is missing, whose settings these are, such as h5ad")
        arguments.add_named("source", "NAME", about, required=True)
    else:
        arguments.add(start.kind, texts=read_texts(start.kind), under="source", about=about)
    arguments.add(Recipe, texts=texts, skip={"source"})
    arguments.add(call, texts=texts, skip={"recipe", "data_dir", "executor"})
    if start is None:
        return words
    known = {*signature(Recipe).parameters, *signature(call).parameters} - {"data_dir"}
    arguments.start_from(
        {name: value for name, value in start.settings.items() if name in known}
        | {f"source.{name}": value for name, value in start.source.items()}
    )
    return words


def _take_executor(
    arguments: Arguments, call: Callable[..., Any], words: list[str], texts: Mapping[str, str]
) -> list[str]:
    """Who does the work, by a name, whose own settings follow a dot."""
    if "executor" not in signature(call).parameters:
        return words
    named, words = take_values(words, "--executor")
    name, about = named[-1] if named else "", texts["executor"]
    if name in ENGINES:
        arguments.add(ENGINES[name], texts=read_texts(ENGINES[name]), under="executor", about=about)
    elif name in ("", "threads"):
        arguments.add_named("executor", "NAME", about)
        words += [f"--executor={name}"] if name else []
    else:
        known = ["threads", *ENGINES]
        near = suggest(name, known)
        raise UsageError(f"--executor {name} is none of {', '.join(known)}{near}")
    return words


def _take_genes(arguments: Arguments, call: Callable[..., Any], words: list[str]) -> list[str]:
    """A directory, how genes are chosen, and how it is done; only what is given counts."""
    texts = read_texts(PrepareOptions, Recipe, call)
    arguments.add_place("data_dir", texts)
    others = [name for name in signature(Recipe).parameters if name not in _GENE_SETTINGS]
    arguments.add(Recipe, texts=texts, skip=others, default="as it is")
    arguments.add(call, texts=texts, skip={"data_dir", "changes"})
    return words


def _take_places(*places: str) -> Take:
    """What a function takes: some by their place, the others by name."""

    def take(arguments: Arguments, call: Callable[..., Any], words: list[str]) -> list[str]:
        texts = read_texts(PrepareOptions, call)
        for name in places:
            arguments.add_place(name, texts)
        arguments.add(call, texts=texts, skip=places)
        return words

    return take


def _take_generate(arguments: Arguments, call: Callable[..., Any], words: list[str]) -> list[str]:
    """A checkpoint, a file, and what generating takes."""
    texts = read_texts(call)
    arguments.add_place("checkpoint", {"checkpoint": "a checkpoint of the demo model"})
    arguments.add_named("output", "FILE", "the h5ad file to write", required=True)
    arguments.add(call, texts=texts, skip={"model", "self", "total_counts"})
    arguments.add_named("total_counts", "N", texts["total_counts"], kind=int)
    return words


_COMMANDS = (
    Command(
        "plan",
        "DATA_DIR --source NAME [--SETTING VALUE …]",
        lambda: plan,
        _take_recipe,
        run_plan,
        (
            "scdiff-data plan data/pbmc --source pbmc --cell_count 250",
            "scdiff-data plan data/lung --source scbasecount --filters.tissue lung",
        ),
    ),
    Command(
        "prepare",
        "DATA_DIR --source NAME [--SETTING VALUE …]",
        lambda: prepare,
        _take_recipe,
        run_prepare,
        (
            "scdiff-data prepare data/mine --source my_files/ --n_hvgs 1000",
            "scdiff-data prepare data/lung --source scbasecount --filters.tissue lung",
            "scdiff-data prepare data/mine --config mine.yaml --stages download",
            "scdiff-data prepare data/lung --source scbasecount --filters.tissue lung "
            "--executor dask --executor.address tcp://10.0.0.1:8786",
        ),
    ),
    Command(
        "hvg",
        "DATA_DIR [--SETTING VALUE …] [--replace | --output_dir DIR]",
        lambda: choose_genes_again,
        _take_genes,
        run_hvg,
        (
            "scdiff-data hvg data/pbmc --n_hvgs 128 --flavor seurat --replace",
            "scdiff-data hvg data/pbmc --n_hvgs 64 --output_dir figures",
        ),
    ),
    Command(
        "info",
        "DATA_DIR|CHECKPOINT [--png FILE] [--json]",
        lambda: describe,
        lambda arguments, _, words: _take_places("data_dir")(arguments, run_info, words),
        run_info,
        ("scdiff-data info data/pbmc --png card.png",),
    ),
    Command(
        "report",
        "DATA_DIR [--path FILE]",
        lambda: write_data_report,
        _take_places("data_dir"),
        run_report,
        ("scdiff-data report data/pbmc --path pbmc.html",),
    ),
    Command(
        "check",
        "DATA_DIR [--n_threads N]",
        lambda: check_data_dir,
        _take_places("data_dir"),
        run_check,
        ("scdiff-data check data/pbmc",),
    ),
    Command(
        "convert",
        "DATA_DIR FORMAT [--n_threads N]",
        lambda: convert_shards,
        _take_places("data_dir", "shard_format"),
        run_convert,
        ("scdiff-data convert data/pbmc compact",),
    ),
    Command(
        "generate",
        "CHECKPOINT --n_cells N --output FILE [--SETTING VALUE …]",
        lambda: load_demo_model().generate,
        _take_generate,
        run_generate,
        (
            "scdiff-data generate last.ckpt --n_cells 1000 --output cells.h5ad",
            "scdiff-data generate last.ckpt --n_cells 9 --labels.cell_type 'CD14+ Monocyte' "
            "--output monocytes.h5ad",
        ),
    ),
)
"""All commands that are functions; `train` and `evaluate` are scripts."""
