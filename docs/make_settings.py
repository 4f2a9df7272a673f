"""Write docs/settings.md from signatures and comments: `python docs/make_settings.py`.

What a setting is, the docstring of the class that takes it says; of Lightning's, and of what a job
is composed of, the comments in `configs/`. Nothing is written twice.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import scdiff_data
from scdiff_data.diffusion import (
    MaskedDiffusion,
    RunReport,
    Speed,
    StopCheckpoint,
    TrainingProgress,
    WeightEMA,
)
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.sources import Condition
from scdiff_data.training import Serving

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "settings.md"

INTRODUCTION = """# Settings

Every setting there is, its default, and what it does. On the command line a setting is `KEY=VALUE`,
with the heading before it: `data.n_hvgs=128`, `trainer.max_epochs=3`,
`callbacks.checkpoint.save_top_k=3`. In Python the same names are arguments of the class that a
heading names. The files of a group are chosen by name: `model=small`, `data/tokenizer=count`.

- `python train.py --cfg job` shows what a command is composed of, `--help` what there is to choose.
- Columns of the catalog and of the cells are named as they come: `data.filters.tissue=[lung]`, or
  `'data.filters={tissue: [lung], n_cells: {min: 1000}}'`. They are added to those of the file that
  is chosen; `~data.filters.tech_10x` takes one away.
- A name that does not exist is an error that tells the near ones; `+KEY=VALUE` gives a class an
  argument that no file lists. `HYDRA_FULL_ERROR=1` shows where an error was raised.
- Files of your own, in a folder of groups, come by `--config-dir FOLDER`; one in `experiment/`
  holds only what differs.

This page is made by `python docs/make_settings.py` from signatures, docstrings and `configs/`.
"""

SOURCES = ("Pbmc", "ScBaseCount", "H5adFolder", "H5adCollection", "Tahoe100M", "Census")
SOURCES = (*SOURCES, "SimulatedAtlas")
EXECUTORS = ("LocalWorkers", "DaskWorkers", "SlurmWorkers")
TOKENIZERS = ("LogBinTokens", "CountTokens", "QuantileTokens", "RankTokens")
CALLBACKS = {"ema": WeightEMA, "report": RunReport, "speed": Speed, "progress": TrainingProgress}
CALLBACKS |= {"stop": StopCheckpoint}
NO_SETTINGS = ("panel", "tokenizer")
"""Arguments that are a checkpoint's, and a group's."""


def make_page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## The job\n", *tabulate_file("train.yaml")]
    parts += ["\nand of `python evaluate.py`:\n", *tabulate_file("evaluate.yaml")]
    parts.append("\n## data\n\n`ScRNADataModule`: which cells and genes, and how they come.\n")
    arguments = inspect.signature(scdiff_data.ScRNADataModule).parameters
    described = {"data_dir": "Where everything is kept; prepared once, then found."}
    described |= describe(Recipe) | describe(PrepareOptions) | describe(Serving)
    described["replace_data"] = described.pop("replace")
    parts += tabulate(arguments, described)
    for heading, names in (
        ("executor", EXECUTORS),
        ("data.source", SOURCES),
        ("data.tokenizer", TOKENIZERS),
    ):
        parts.append(f"\n## {heading}\n")
        for name in names:
            parts += tabulate_class(getattr(scdiff_data, name))
    parts.append("\n## model\n")
    parts += tabulate_class(MaskedDiffusion)
    parts += ["\n`small` and `base` bring epochs, batches and averages that fit their size.\n"]
    for name in ("tiny", "small", "base", "pretrained"):
        parts += [f"\n`model={name}`:\n", *tabulate_file(f"model/{name}.yaml")]
    parts += ["\n## trainer\n\n`lightning.Trainer`; `trainer=default`:\n"]
    parts += tabulate_file("trainer/default.yaml")
    for name in ("cpu", "gpu", "ddp", "ddp_cpu"):
        parts += [f"\n`trainer={name}`:\n", *tabulate_file(f"trainer/{name}.yaml")]
    parts += ["\n## callbacks\n", *tabulate_file("callbacks/default.yaml"), ""]
    for name, kind in CALLBACKS.items():
        parts.append(f"- `{name}` is `{kind.__name__}`: {first_sentence(kind)}")
    parts.append("\n## logger\n")
    for name in ("csv", "tensorboard", "wandb"):
        parts += [f"\n`logger={name}`:\n", *tabulate_file(f"logger/{name}.yaml")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)) + "\n"


def describe(kind: Any) -> dict[str, str]:
    """What a class's docstring says of each of its parameters; those told together, as one."""
    text = inspect.cleandoc(kind.__doc__ or "")
    _, _, after = text.partition("Parameters\n----------\n")
    section = re.split(r"\n\n\w[^\n]*\n-+\n", after)[0]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line.startswith("    "):
            known = found.get(names[0], "")
            found |= dict.fromkeys(names, f"{known} {line.strip()}".strip())
        elif line.strip():
            names = [name.strip() for name in line.split(",")]
    return found


def first_sentence(kind: Any) -> str:
    """The first line of a docstring."""
    return inspect.cleandoc(kind.__doc__ or "").splitlines()[0]


def tabulate_class(kind: Callable[..., Any]) -> list[str]:
    """A class, what it is, and its arguments."""
    arguments = inspect.signature(kind).parameters
    head = f"\n`{kind.__name__}`: {first_sentence(kind)}\n"
    return [head, *(tabulate(arguments, describe(kind)) if arguments else [])]


def tabulate(
    arguments: Mapping[str, inspect.Parameter], described: Mapping[str, str]
) -> Iterator[str]:
    """Arguments as rows of a table; those that are described together, as one row."""
    yield from ("| setting | type | default | what it is |", "|---|---|---|---|")
    names = [name for name in arguments if name not in NO_SETTINGS]
    while names:
        text = described[names[0]]
        together = [name for name in names if described[name] == text]
        names = [name for name in names if name not in together]
        columns = [
            [f"`{name}`" for name in together],
            dict.fromkeys(describe_type(arguments[name].annotation) for name in together),
            [describe_default(arguments[name].default) for name in together],
            [text.replace("|", "or")],
        ]
        yield "| " + " | ".join(", ".join(column) for column in columns) + " |"


def describe_type(annotation: Any) -> str:
    """An annotation without the modules, in words that a table can hold."""
    if annotation == Mapping[str, Condition] | None:
        return "conditions or None"
    text = inspect.formatannotation(annotation)
    return re.sub(r"[\w.]+\.(\w+)", r"\1", text).replace(" | ", " or ").replace("NoneType", "None")


def describe_default(default: Any) -> str:
    """A default as YAML has it."""
    if default is inspect.Parameter.empty:
        return "needed"
    if default is None:
        return "null"
    if isinstance(default, tuple):
        return f"[{', '.join(map(str, default))}]"
    if isinstance(default, bool):
        return str(default).lower()
    return "{}" if str(default) == "<factory>" else str(default)


def tabulate_file(name: str) -> Iterator[str]:
    """The settings of a file of `configs/`, with their comments."""
    yield from ("| setting | default | what it is |", "|---|---|---|")
    path: list[str] = []
    for line in (ROOT / "configs" / name).read_text("utf-8").splitlines():
        found = re.fullmatch(r"( *)([a-z]\w*):(?: +([^# ].*?))?(?: +# (.*))?", line)
        if found is None or found[2] == "defaults":
            continue
        path = [*path[: len(found[1]) // 2], found[2]]
        if found[3] or found[4]:
            value = f"`{found[3]}`" if found[3] else ""
            yield f"| `{'.'.join(path)}` | {value} | {found[4] or ''} |"


if __name__ == "__main__":
    PAGE.write_text(make_page(), "utf-8")
