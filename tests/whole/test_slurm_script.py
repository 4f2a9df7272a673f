"""examples/slurm.sh: bash reads it, and what it starts is a command that composes."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from support.cases import ROOT
from support.configs import compose

SCRIPT = ROOT / "examples" / "slurm.sh"


def submit(folder: Path, *arguments: str, **variables: str) -> list[list[str]]:
    """What the script starts by `srun`, each as its arguments, where Slurm sets these variables."""
    stub = folder / "bin" / "srun"
    stub.parent.mkdir()
    stub.write_text(
        f'#!/bin/bash\nprintf "%q " "$@" >> {folder}/started\necho >> {folder}/started\n'
    )
    stub.chmod(0o755)
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    finished = subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        env=own | {"PATH": f"{stub.parent}:{os.environ['PATH']}"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return [shlex.split(line) for line in (folder / "started").read_text().splitlines()]


@pytest.mark.parametrize("n_nodes", [1, 2])
def test_a_job_of_one_node_or_two_trains_with_a_rank_a_task(tmp_path: Path, n_nodes: int) -> None:
    asked = {"SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": str(n_nodes)}
    ((*_, command, script, first, second, third, data, folder),) = submit(
        tmp_path, "data=prepared", "data.data_dir=/shared/mine", **asked
    )
    assert (command, script) == ("scdiff-data", "train")
    config = compose(tmp_path, first, second, third, data, folder)
    assert (config.trainer.devices, config.trainer.num_nodes) == (8, n_nodes)
    assert config.trainer.strategy == "ddp"
    assert config.data.data_dir == "/shared/mine"


def test_shards_are_copied_to_each_nodes_own_disk_first(tmp_path: Path, pbmc_dir: Path) -> None:
    asked = {"SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2"}
    local = tmp_path / "local"
    copying, training = submit(
        tmp_path, "model=tiny", COPY_FROM=str(pbmc_dir), COPY_TO=str(local), **asked
    )
    assert {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1"} <= set(copying)
    assert {"data=prepared", f"data.data_dir={local}"} <= set(training)
    for _ in range(2):  # the second time, over what is there
        subprocess.run(copying[copying.index("bash") :], check=True)
    names = [path.name for path in sorted(local.iterdir())]
    assert names == ["config.json", "processed"]
    shards = sorted((local / "processed").iterdir())
    assert [path.read_bytes() for path in shards] == [
        path.read_bytes() for path in sorted((pbmc_dir / "processed").iterdir())
    ]


def test_it_asks_slurm_for_what_requeueing_needs() -> None:
    asked = [line.split()[1] for line in SCRIPT.read_text().splitlines() if line[:7] == "#SBATCH"]
    assert {"--requeue", "--open-mode=append"} <= set(asked)
    assert any(option.startswith("--signal=SIGUSR1@") for option in asked)
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
