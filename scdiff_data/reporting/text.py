"""A card as lines of text."""

from collections.abc import Mapping
from typing import Any

from scdiff_data.base import describe_size

_N_VALUES = 12
"""Values of a label that are named one by one."""


def write_text(facts: Mapping[str, Any]) -> str:
    """The facts of a `DataCard`, a line each."""
    lines = [("data set", facts["data_dir"]), ("state", _tell_state(facts))]
    lines += [("", note) for note in facts["notes"]]
    if "settings" in facts:
        source = facts["settings"]["source"].values()
        lines.append(("source", ", ".join(map(str, source))))
    if "cells" in facts:
        lines += [
            ("cells", _sum_up(facts["cells"])),
            ("experiments", _tell_experiments(facts)),
            ("genes", _tell_genes(facts["genes"])),
        ]
    if "read" in facts:
        lines.append(("", f"what follows is of {facts['read']:,} cells, evenly taken, and scaled"))
    for name, shown in (("counts_a_cell", "counts a cell"), ("genes_a_cell", "genes a cell")):
        if found := facts.get(name):
            lines.append((shown, _tell_spread(found)))
    for name, label in facts.get("labels", {}).items():
        lines += _tell_label(name, label)
    if "losses" in facts:
        told = [(line[:18].strip(), line[18:].strip()) for line in facts["losses"].splitlines()]
        lines += [(name, text) for name, text in told if text.partition(",")[0] != "0"]
    if changed := facts.get("changed"):
        settings = [f"{name}={_tell_value(facts['settings'][name])}" for name in changed]
        lines += [("settings" if i == 0 else "", text) for i, text in enumerate(settings)]
    if "shards" in facts:
        shards = facts["shards"]
        lines.append(("shards", f"{shards['n']:,}, {shards['format']}"))
    disk = facts["disk"]
    parts = ", ".join(f"{name} {describe_size(n)}" for name, n in disk.items() if n)
    lines.append(("on disk", f"{describe_size(sum(disk.values()))}: {parts}"))
    if "packages" in facts:
        packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
        lines.append(("made by", packages))
    return "\n".join(f"{name:18} {text}".rstrip() for name, text in lines)


def _tell_state(facts: Mapping[str, Any]) -> str:
    if facts["state"] != "whole":
        return str(facts["state"])
    return f"whole, by the files' sizes; 'scdiff-data check {facts['data_dir']}' reads every byte"


def _sum_up(of_split: Mapping[str, int]) -> str:
    parts = ", ".join(f"{n:,} {name}" for name, n in of_split.items())
    return f"{sum(of_split.values()):,}: {parts}"


def _tell_experiments(facts: Mapping[str, Any]) -> str:
    told = ", ".join(f"{n:,} {name}" for name, n in facts["experiments"].items())
    if largest := facts.get("largest_experiments"):
        name, n = next(iter(largest.items()))
        told += f"; the largest is {name} with {n:,} cells"
    return told


def _tell_genes(genes: Mapping[str, Any]) -> str:
    told = f"{genes['chosen']:,} of {genes['reference']:,}"
    if "how" in genes:
        told += f", by {genes['how']}: {', '.join(genes['first'])}"
        told += ", …" if genes["chosen"] > len(genes["first"]) else ""
    if "places_refilled" in genes:
        told += f"; {genes['places_refilled']:,} empty places hold other genes"
    return told


def _tell_spread(found: Mapping[str, int]) -> str:
    return (
        f"median {found['median']:,}; eight of ten cells have {found['tenth']:,} to "
        f"{found['nine_tenths']:,}; {found['least']:,} to {found['most']:,} in all"
    )


def _tell_label(name: str, label: Mapping[str, Any]) -> list[tuple[str, str]]:
    without = f"; {label['missing']:,} cells without" if label["missing"] else ""
    if "least" in label:
        told = f"numbers from {label['least']:,g} to {label['most']:,g}, mean {label['mean']:,.6g}"
        return [(f"label {name}", told + without)]
    values = label.get("values", {})
    total = max(sum(values.values()) + label["missing"], 1)
    plural = "value" if len(values) == 1 else "values"
    lines = [(f"label {name}", f"{len(values):,} {plural}{without}")]
    lines += [
        ("", f"{n:>12,}  {100 * n / total:5.1f} %  {value if str(value).strip() else repr(value)}")
        for value, n in list(values.items())[:_N_VALUES]
    ]
    if (more := len(values) - _N_VALUES) > 0:
        rest = sum(list(values.values())[_N_VALUES:])
        lines.append(("", f"{rest:>12,}  {100 * rest / total:5.1f} %  in {more:,} more"))
    return lines


def _tell_value(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 100 else f"{text[:97]}…"
