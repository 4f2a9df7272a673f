"""Jobs in processes of their own, so that one that crashes or hangs is named and the others go on.

A server imports everything once. It forks a child for a batch of jobs. The child writes down what
became of each job; whatever it has not written when it dies or is ended belongs to the next job.
"""

import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from support.cases import ROOT, TESTS

_ADDRESS_SPACE = 16 << 30
"""Bytes that a child may have: a job that wants more gets a MemoryError, not the machine."""

_POLL = 0.002
"""Seconds between two looks at a child."""

_LONGEST = 1.0
"""Seconds that count between two looks: while all is stopped and goes on later, nobody hangs."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Parameters
    ----------
    how
        `returned`, `raised`, `crashed` (a signal ended its process) or `hung`.
    value
        What it returned; None otherwise.
    error, text
        The names of the exception's types, most special first, and what it says.
    trace
        Where it was raised, the innermost place last.
    signal
        The signal that ended its process.
    seconds
        How long it took.
    """

    how: str
    value: Any = None
    error: tuple[str, ...] = ()
    text: str = ""
    trace: str = ""
    signal: int = 0
    seconds: float = 0.0


class Isolated:
    """A server of jobs; leaving its context ends it.

    Parameters
    ----------
    preload
        A shared library that is loaded before the C library, in the server and so in its children.
    imports
        Modules that the server imports; a function `warm_up` of theirs is called, so that children
        find compiled code loaded.
    """

    def __init__(self, *imports: str, preload: Path | None = None) -> None:
        self._folder = TemporaryDirectory()
        environment = dict(os.environ)
        paths = [str(TESTS), str(ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        environment |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        if preload is not None:
            environment["LD_PRELOAD"] = str(preload)
        self._printed = (Path(self._folder.name) / "printed").open("w+")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "support.isolated", *imports],
            stderr=self._printed,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TESTS,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()
        self._printed.close()
        self._folder.cleanup()

    def run(
        self,
        job: str,
        batch: Sequence[Mapping[str, Any]],
        *,
        limit: float = 60,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Outcome]:
        """Do a job for each of a batch of arguments, in their order.

        Parameters
        ----------
        job
            `module:function`; arguments and what it returns are what JSON can say.
        batch
            Arguments by name, of each call.
        limit
            Seconds after which a call is taken to hang.
        environment
            Set in the child.
        """
        done, said = 0, Path(self._folder.name) / "said"
        while done < len(batch):
            said.write_text("")
            request = {
                "job": job,
                "batch": batch[done:],
                "limit": limit,
                "said": str(said),
                "environment": environment or {},
            }
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            answer = self._server.stdout.readline()
            if not answer:
                self._printed.seek(0)
                raise RuntimeError(f"the server of jobs ended: {self._printed.read()}")
            end = json.loads(answer)
            lines = said.read_text("utf-8").splitlines()
            for line in lines:
                yield Outcome(**json.loads(line))
            done += len(lines)
            if done < len(batch):
                yield Outcome(**end)
                done += 1


def _serve(answers: int) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        said = Path(request["said"])
        started = time.monotonic()
        child = os.fork()
        if not child:
            _work(request, said)
        end = _watch(child, said, request["limit"])
        end["seconds"] = time.monotonic() - started
        os.write(answers, json.dumps(end).encode() + b"\n")


def _watch(child: int, said: Path, limit: float) -> dict[str, Any]:
    size, waited, last = 0, 0.0, time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return {"how": "crashed", "signal": -code, "text": _last_words(said)}
        if (now := said.stat().st_size) != size:
            size, waited = now, 0.0
        elif waited > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"how": "hung", "text": _last_words(said)}
        time.sleep(_POLL)
        waited += min(time.monotonic() - last, _LONGEST)
        last = time.monotonic()


def _last_words(said: Path) -> str:
    """The end of what the child printed, but for the list that Python adds where it crashes."""
    printed = said.with_suffix(".err").read_text("utf-8", "replace")
    return printed.partition("Extension modules: ")[0][-4000:]


def _work(request: Mapping[str, Any], said: Path) -> None:
    code = 1
    try:
        os.setsid()
        printed = os.open(said.with_suffix(".err"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        faulthandler.enable()  # a crash says where, too
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ.update(request["environment"])
        module, function = request["job"].split(":")
        call = getattr(import_module(module), function)
        with said.open("a", encoding="utf-8") as file:
            for arguments in request["batch"]:
                # Where it hangs stands in its last words.
                faulthandler.dump_traceback_later(0.9 * request["limit"])
                outcome = _do(call, arguments)
                faulthandler.cancel_dump_traceback_later()
                file.write(json.dumps(outcome) + "\n")
                file.flush()
        code = 0
    finally:
        os._exit(code)


def _do(call: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    outcome: dict[str, Any]
    try:
        outcome = {"how": "returned", "value": call(**arguments)}
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what became of the job
        outcome = {
            "how": "raised",
            "error": [kind.__name__ for kind in type(error).__mro__],
            "text": str(error),
            "trace": "".join(traceback.format_tb(error.__traceback__)[-4:]),
        }
    return outcome | {"seconds": time.monotonic() - started}


if __name__ == "__main__":
    descriptor = os.dup(1)  # what libraries print must not look like an answer
    os.dup2(2, 1)
    for name in sys.argv[1:]:
        getattr(import_module(name), "warm_up", int)()
    _serve(descriptor)
