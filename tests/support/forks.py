"""Processes of their own that find everything imported.

Importing torch and Lightning takes many times longer than most of what these processes do. So one
process imports them once, and what a test starts is forked from it. A test of how a command starts
or is interrupted takes `subprocess`.
"""

import os
import runpy
import sys
from multiprocessing import get_context, set_start_method
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Self

_context = get_context("forkserver")
_context.set_forkserver_preload(
    ["hydra.main", "scanpy", "sklearn.ensemble", "scdiff_data.pipeline", "scdiff_data.diffusion"]
)


class Fork:
    """A running Python process; leaving its context ends it.

    Parameters
    ----------
    program
        The path of a file, the name of a module, or a script of more lines than one.
    arguments
        What it finds in `sys.argv`.
    cwd
        Where it runs.
    folder
        Where what it says is kept.
    """

    def __init__(self, program: str | Path, *arguments: str, cwd: Path, folder: Path) -> None:
        self.program = str(program)
        number = len(list(folder.glob("*.out")))
        self._files = [folder / f"{number}.{kind}" for kind in ("out", "err")]
        for file in self._files:
            file.touch()
        self._process = _context.Process(
            target=_run, args=(self.program, arguments, cwd, self._files, dict(os.environ))
        )
        self._process.start()

    @property
    def stdout(self) -> str:
        """What it has said by now."""
        return self._files[0].read_text()

    @property
    def stderr(self) -> str:
        """What it has warned of by now."""
        return self._files[1].read_text()

    @property
    def returncode(self) -> int | None:
        """As `subprocess` has it; None while it runs."""
        return self._process.exitcode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once, if it still runs."""
        self._process.kill()
        self._process.join()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired(self.program, timeout or 0)
        return self._process.exitcode


def run(
    program: str | Path, *arguments: str, cwd: Path, timeout: float = 240
) -> CompletedProcess[str]:
    """Run a program to its end, as `subprocess.run` does."""
    with TemporaryDirectory() as folder:
        with Fork(program, *arguments, cwd=cwd, folder=Path(folder)) as fork:
            code = fork.wait(timeout)
        return CompletedProcess((fork.program, *arguments), code, fork.stdout, fork.stderr)


def _run(
    program: str,
    arguments: tuple[str, ...],
    cwd: Path,
    files: list[Path],
    environment: dict[str, str],
) -> None:
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY), number)
    set_start_method(None, force=True)  # for the program's own processes: the default, again
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = [program, *arguments]
    if "\n" in program:
        exec(compile(program, "<script>", "exec"), {"__name__": "__main__"})
    elif program.endswith(".py"):
        sys.path.insert(0, str(Path(program).parent))
        runpy.run_path(program, run_name="__main__")
    else:
        sys.path.insert(0, str(cwd))
        runpy.run_module(program, run_name="__main__", alter_sys=True)
