"""The pages are true: commands parse, examples run, files exist. (README's blocks: test_wheel.)"""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import scdiff_data
from scdiff_data.command import find_command
from support.cases import ROOT
from support.configs import compose
from support.pages import PAGES, blocks


def run(script: str, folder: Path) -> str:
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_examples_of_contributing_are_short_and_run_as_written(tmp_path: Path) -> None:
    examples = blocks("python", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert len(examples) == 3
    assert all(len(example.splitlines()) < 30 for example in examples)
    cells, flavor, tokens = run("\n".join(examples), tmp_path).splitlines()
    assert sum(ast.literal_eval(cells).values()) == 700
    assert flavor == "detection"
    assert tokens == "tensor([0, 1, 2])"


def test_the_picture_of_the_rooms_is_that_of_the_package() -> None:
    picture = re.compile(r"^    base/ .*?^    command/ [^\n]*", re.DOTALL | re.MULTILINE)
    own = picture.search(scdiff_data.__doc__ or "")
    assert own is not None
    shown = picture.search((ROOT / "docs" / "architecture.md").read_text("utf-8"))
    assert shown is not None
    assert shown[0] == own[0]


def test_the_architecture_page_names_files_that_there_are() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    package = ROOT / "scdiff_data"
    rows = [row.split("|")[2] for row in page.splitlines() if row.startswith("|")][2:]
    for row in rows:
        room = ""
        for name in re.findall(r"`([a-z_/]+\.py)`", row):
            room = name.split("/")[0] if "/" in name else room
            assert (package / room / name.split("/")[-1]).exists(), row


COMMANDS = [
    shlex.split(line.split("train.py")[1], comments=True)
    for page in PAGES
    for block in blocks("sh", page)
    for line in block.splitlines()
    if line.startswith("python train.py")
]


@pytest.mark.parametrize("overrides", COMMANDS, ids=" ".join)
def test_commands_compose(tmp_path: Path, overrides: list[str]) -> None:
    if "--multirun" in overrides:
        overrides = [o.split(",")[0] for o in overrides if o != "--multirun"]
    overrides = [o.replace("data/pbmc/hvg_info.json", "[CD3E,LYZ]") for o in overrides]
    assert compose(tmp_path, *overrides).data._target_


OWN_COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for page in PAGES
    for block in blocks("sh", page)
    for line in block.splitlines()
    if line.startswith("scdiff-data ")
]


@pytest.mark.parametrize("words", OWN_COMMANDS, ids=" ".join)
def test_commands_of_our_own_parse(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, *words = words
    if name in ("train", "evaluate", "completion"):
        return
    (tmp_path / "mine.yaml").write_text("source: pbmc")
    monkeypatch.chdir(tmp_path)
    arguments, left = find_command(name).read(words)
    arguments.read(left)


def test_the_format_page_names_every_key_of_hvg_info(pbmc_dir: Path) -> None:
    page = (ROOT / "docs" / "format.md").read_text("utf-8")
    info = json.loads((pbmc_dir / "hvg_info.json").read_text())
    keys = [*info, *info["settings"], *info["statistics"], *info["statistics"]["dispersion"]]
    keys += info["statistics"]["top"][0]
    assert not [key for key in keys if f"`{key}`" not in page]


def test_pictures_and_pages_that_are_linked_exist() -> None:
    for folder in (ROOT, ROOT / "docs", ROOT / "docs" / "howto"):
        for page in folder.glob("*.md"):
            for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
                assert (folder / target).exists(), f"{page.name}: {target}"


def test_the_choices_listed_are_those_there_are() -> None:
    page = (ROOT / "docs" / "howto" / "train.md").read_text("utf-8")
    groups = re.findall(r"^\| `([a-z/]+)` \| (`.*) \|$", page, re.MULTILINE)
    assert len(groups) > 5
    for group, choices in groups:
        listed = set(re.findall(r"`([a-z0-9_]+)`", choices))
        files = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")}
        assert listed == files - ({"default"} if group == "data" else set()), group


def test_make_has_the_targets_named() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [*PAGES, (ROOT / "CONTRIBUTING.md").read_text("utf-8")]
    commands = "\n".join(block for page in pages for block in blocks("sh", page))
    named = set(re.findall(r"^make (\w+)", commands, re.MULTILINE))
    assert {"train", "test", "lint", "docs"} <= named <= targets


def test_the_page_on_lightning_names_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "lightning.md").read_text("utf-8")
    named = re.findall(r"`([a-z_/]+\.py)(?:::(\w+))?`", page)
    assert len(named) > 15
    for file, test in named:
        assert not test or f"def {test}(" in (ROOT / "tests" / file).read_text("utf-8"), test
        assert (ROOT / "tests" / file).exists(), file
