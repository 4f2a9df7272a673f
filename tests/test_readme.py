"""README's Python blocks run, in order, in an empty folder; its commands and files exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_configs import compose

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run_as_written(tmp_path: Path) -> None:
    script = "\n".join(blocks("python"))
    assert "ScRNADataModule" in script
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert finished.returncode == 0, finished.stderr
    assert "torch.Size([32, 192]) torch.int16" in finished.stdout
    assert "{'train': " in finished.stdout


COMMANDS = [
    shlex.split(line.split("train.py")[1], comments=True)
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith("python train.py")
]


@pytest.mark.parametrize("overrides", COMMANDS, ids=" ".join)
def test_commands_compose(tmp_path: Path, overrides: list[str]) -> None:
    if "--multirun" in overrides:
        overrides = [o.split(",")[0] for o in overrides if o != "--multirun"]
    assert compose(tmp_path, *overrides).data.source


def test_the_choices_listed_are_those_there_are() -> None:
    for group, choices in re.findall(r"^\| `([a-z/]+)` \| (.*) \|$", README, re.MULTILINE):
        listed = set(re.findall(r"`([a-z0-9_]+)`", choices))
        files = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")}
        assert listed == files - ({"default"} if group == "data" else set()), group


def test_make_has_the_targets_named() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.search(r"lists what else there is: (.*?)\.", README, re.DOTALL)
    assert named is not None
    assert set(re.findall(r"`(\w+)`", named[1])) | {"train", "test"} <= targets
