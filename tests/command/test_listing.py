"""Every command does what its help shows."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from scdiff_data import Manifest, SimulatedAtlas
from scdiff_data.cli import _FUNCTIONS, main
from scdiff_data.command.listing import _COMMANDS, find_command
from support.cases import digest_tree

NO_NETWORK = [
    line
    for command in _COMMANDS
    if command.name != "generate"  # which takes torch: see tests/whole
    for line in command.examples
    if "scbasecount" not in line
]
"""Examples that need no network."""


def test_the_list_of_commands_is_that_of_the_help() -> None:
    assert [command.name for command in _COMMANDS] == list(_FUNCTIONS)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, pbmc_dir: Path) -> Path:
    """A folder as a user has it: files of their own, a prepared directory, settings."""
    home = tmp_path_factory.mktemp("home")
    made = SimulatedAtlas(n_experiments=3, n_cells=40, n_genes=1500, seed=2).open(home / "made")
    (home / "my_files").mkdir()
    for path in Path(made.url).rglob("*.h5ad"):
        shutil.copy(path, home / "my_files")
    shutil.copytree(pbmc_dir, home / "data" / "pbmc")
    (home / "mine.yaml").write_text("source: my_files/\nn_hvgs: 1000\n")
    return home


def test_examples_run_as_they_stand(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    said = {}
    for line in NO_NETWORK:
        command, *words = shlex.split(line)
        assert command == "scdiff-data"
        assert main(words) == 0, capsys.readouterr().err
        said[line] = capsys.readouterr().out
    assert Manifest.read("data/mine").genes.n_chosen == 1000
    assert len(json.loads(Path("figures/hvg_info.json").read_text())["hvg_names"]) == 64
    assert Manifest.read("data/pbmc").genes.n_chosen == 128
    assert Manifest.read("data/pbmc").shard_format == "compact"
    assert Path("card.png").read_bytes().startswith(b"\x89PNG")
    assert said["scdiff-data report data/pbmc --path pbmc.html"] == "pbmc.html\n"
    assert "700" in Path("pbmc.html").read_text("utf-8")
    assert any(
        text.startswith("128 of 765 genes, 700 cells in 3 shards (569 train")
        for text in said.values()
    )
    assert main(["info", "data/pbmc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "whole"


def test_a_choice_elsewhere_is_the_choice_here_and_changes_nothing(
    data_dir: Path, tmp_path: Path
) -> None:
    before = digest_tree(data_dir)
    settings = ["--n_hvgs", "30", "--flavor", "seurat", "--batch_key", "experiment_id"]
    elsewhere = ["--output-dir", str(tmp_path / "figures")]
    assert main(["hvg", str(data_dir), *settings, *elsewhere]) == 0
    assert digest_tree(data_dir) == before
    assert main(["hvg", str(data_dir), *settings, "--replace"]) == 0
    for name in ("hvg_info.json", "hvg_analysis.png"):
        there = (tmp_path / "figures" / name).read_bytes()
        assert there == (data_dir / name).read_bytes()


@pytest.mark.parametrize("name", [name for name in _FUNCTIONS if name != "generate"])
def test_help_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert find_command(name).examples[0] in shown
    arguments, _ = find_command(name).read([])
    for action in arguments.parser._actions:
        assert action.help, f"{name} {action.dest}"
        assert "see Prepare" not in action.help


def test_mistakes_are_one_line_and_2_and_errors_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, code, said in (
        (["prepar"], 2, "did you mean prepare?"),
        (["plan", "d", "--source", "pbmc", "--sed", "1"], 2, "did you mean --seed?"),
        (["info", str(tmp_path)], 1, "holds nothing that scdiff_data prepared"),
        (["convert", str(tmp_path), "sparse"], 1, "must be dense or compact, got 'sparse'"),
        (["plan", str(tmp_path), "--source", "pbmc", "--flavor", "x"], 1, "flavor must be one of"),
    ):
        assert main(words) == code
        printed = capsys.readouterr()
        assert said in printed.err
        assert printed.err.count("\n") == 1
        assert not printed.out
    monkeypatch.setattr("sys.argv", ["scdiff-data"])
    for nothing in ([], None):
        assert main(nothing) == 2
        assert "name a command" in capsys.readouterr().err


def test_ctrl_c_leaves_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scdiff_data.command.work.plan", stop)
    assert main(["plan", str(tmp_path), "--source", "pbmc"]) == 130


def test_completion_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    assert "--n_hvgs" in capsys.readouterr().out
    assert main(["completion", "none"]) == 2
