"""Tasks that an executor's workers do, and do again where one was lost or failed by chance.

Who does what when is the executor's business. What is added: a task that failed for a reason that
may pass, or whose worker was lost, is sent again, until it is done or there is no hope. What comes
back is what one attempt made, whichever was the first; what others make is thrown away.
"""

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from scdiff_data.base import flush_folder
from scdiff_data.executors.attempts import (
    ALIVE,
    Attempt,
    attempt,
    begin_run,
    name_process,
    remove_runs,
)
from scdiff_data.executors.engines import Workplace

logger = logging.getLogger(__name__)

_MOST_FAILURES = 10
"""Failures of a task, while no other one was done, after which it is given up."""

_MOST_WORKERS = 3
"""Workers that a task may fail on."""

_MOST_LOST = 3
"""Times that a task may be lost with its worker, and that a pool is made anew."""

_LONGEST_PAUSE = 60.0
"""Seconds at the most before a task is sent again: the first time at once, then 1, 2, 4 …"""


@dataclass(frozen=True)
class Done:
    """A task that is done.

    Parameters
    ----------
    number
        What `Crew.send` gave.
    value
        What its function gave.
    folder
        What it wrote; gone with the next task that is asked for.
    """

    number: int
    value: Any
    folder: Path

    def move(self, made: Path, target: Path) -> None:
        """Put something that it wrote into its place."""
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)
        flush_folder(target.parent)


@dataclass
class _Task:
    function: Callable[[Any, Path], Any]
    job: Any
    about: str
    failed_on: set[str] = field(default_factory=set)
    n_failures: int = 0
    n_lost: int = 0
    send_at: float | None = None
    sent: list["Future[Attempt]"] = field(default_factory=list)


class Crew:
    """Sends tasks and takes what comes of them; made by `hire`.

    Parameters
    ----------
    workplace
        The executor, and how many work there.
    folder
        The run's own, in the data directory: below it each attempt makes its own.
    """

    def __init__(self, workplace: Workplace, folder: Path) -> None:
        self.n_workers, self.n_threads = workplace.n_workers, workplace.n_threads
        self.folder = folder
        self._workplace = workplace
        self._executor = workplace.executor
        self._tasks: dict[int, _Task] = {}
        self._sent: dict[Future[Attempt], int] = {}
        self._back: SimpleQueue[Future[Attempt]] = SimpleQueue()
        self._n_tasks, self._n_attempts, self._n_broken = 0, 0, 0
        self._home = name_process()
        self._to_be_removed: Path | None = None

    def send(self, function: Callable[[Any, Path], Any], job: Any, about: str) -> int:
        """Have a function of a module called with a job, and a folder to write to.

        Parameters
        ----------
        function, job
            Both are pickled.
        about
            What it does, for messages.
        """
        number = self._n_tasks = self._n_tasks + 1
        self._tasks[number] = _Task(function, job, about)
        self._send(number)
        return number

    def take(self) -> Done:
        """Wait for the next task that is done, whichever it is.

        Raises
        ------
        ConnectionError
            If the executor is out of order, or a task was lost again and again.
        Exception
            What a task raised that no other attempt would mend, or that several did not.
        """
        self._tidy()
        while True:
            self._send_what_is_due()
            due = [task.send_at for task in self._tasks.values() if task.send_at is not None]
            try:
                future = self._back.get(timeout=max(0.0, min(due) - monotonic()) if due else None)
            except Empty:
                continue
            number = self._sent.pop(future, 0)
            is_awaited = number in self._tasks  # else another attempt was faster
            if is_awaited and (made := self._look(number, future)) is not None:
                return made

    def run(
        self, function: Callable[[Any, Path], Any], jobs: Iterable[Any], about: str
    ) -> Iterator[Done]:
        """What a function makes of each job, as it comes; numbers count from 0 on."""
        numbers = {self.send(function, job, f"{about} {i}"): i for i, job in enumerate(jobs)}
        for _ in range(len(numbers)):
            done = self.take()
            yield Done(numbers[done.number], done.value, done.folder)
        self._tidy()

    def close(self) -> None:
        """Cancel what is not done; what still runs finds its folder gone."""
        self._tasks.clear()
        for future in [*self._sent]:
            future.cancel()
        (self.folder / ALIVE).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _send(self, number: int) -> None:
        task = self._tasks[number]
        task.send_at = None
        level = logging.getLogger("scdiff_data").getEffectiveLevel()
        # Once it failed twice in a row, the worker that is free first may be the one that fails.
        n_copies = 2 if task.n_failures > 1 else 1
        for _ in range(n_copies - len(task.sent)):
            self._n_attempts += 1  # Dask takes a call for one that it did, if its arguments are
            arguments = (self.folder, number, self._n_attempts, self._home, level)
            try:
                future = self._executor.submit(attempt, task.function, task.job, *arguments)
            except BrokenExecutor as error:
                self._mend(error)
                return
            except RuntimeError as error:
                raise ConnectionError(_explain_end(task.about, error)) from error
            self._sent[future] = number
            task.sent.append(future)
            future.add_done_callback(self._back.put)

    def _send_what_is_due(self) -> None:
        now = monotonic()
        for number in [n for n, task in self._tasks.items() if task.send_at is not None]:
            if (self._tasks[number].send_at or 0.0) <= now:
                self._send(number)

    def _look(self, number: int, future: "Future[Attempt]") -> Done | None:
        """What came back of a task: it is done, or sent again, or an error ends all."""
        task = self._tasks[number]
        task.sent.remove(future)
        try:
            made = future.result()
        except BrokenExecutor as error:
            self._mend(error)
            return None
        except CancelledError as error:
            raise ConnectionError(_explain_end(task.about, error)) from error
        except Exception as error:
            task.n_lost += 1
            logger.warning("%s was lost, and is sent again: %s", task.about, _describe(error))
            if task.n_lost >= _MOST_LOST:
                raise ConnectionError(
                    f"{task.about} was lost {task.n_lost} times, the last time with: "
                    f"{_describe(error)}: see whether the workers have this package and memory "
                    "enough; the same command goes on from here"
                ) from error
            self._send(number)
            return None
        for level, name, text in made.log:
            logging.getLogger(name).log(level, "%s (on %s)", text, made.worker)
        if made.error is not None:
            self._bear(number, made, made.error)
            return None
        del self._tasks[number]
        for copy in task.sent:
            self._sent.pop(copy, None)
            copy.cancel()
        for other in self._tasks.values():  # somebody can work, so it may yet be done
            other.n_failures = 0
        self._n_broken = 0
        self._remove_attempts(number, made.folder)
        self._to_be_removed = self.folder / made.folder
        return Done(number, made.value, self._to_be_removed)

    def _bear(self, number: int, made: Attempt, error: Exception) -> None:
        """Raise what a task failed with, or send it again."""
        task = self._tasks[number]
        task.failed_on.add(made.worker)
        task.n_failures += 1
        is_hope = task.n_failures < _MOST_FAILURES and len(task.failed_on) < _MOST_WORKERS
        if not (made.may_pass and is_hope):
            raise error
        logger.warning(
            "%s failed on %s and is tried again: %s", task.about, made.worker, _describe(error)
        )
        pause = 0.0 if task.n_failures < 2 else min(2.0 ** (task.n_failures - 2), _LONGEST_PAUSE)
        task.send_at = monotonic() + pause

    def _mend(self, error: BrokenExecutor) -> None:
        """Make a broken pool anew, and send all again that it had; raise if that is of no use."""
        self._n_broken += 1
        if self._workplace.remake is None:
            raise ConnectionError(
                f"the executor is broken ({_describe(error)}): make a new one; the same call goes "
                "on from here"
            ) from error
        if self._n_broken > _MOST_LOST:
            raise ConnectionError(
                f"workers ended {self._n_broken} times before anything was done "
                f"({_describe(error)}): memory may be short; take fewer workers, or a smaller "
                "max_memory"
            ) from error
        logger.warning("a worker was lost, and others take its place: %s", _describe(error))
        self._sent.clear()
        self._executor = self._workplace.remake()
        for number, task in self._tasks.items():
            task.send_at = 0.0
            task.sent.clear()
            self._remove_attempts(number, "")

    def _remove_attempts(self, number: int, but: str) -> None:
        for left in self.folder.glob(f"{number}-*"):
            if left.name != but:
                shutil.rmtree(left, ignore_errors=True)

    def _tidy(self) -> None:
        if self._to_be_removed is not None:
            shutil.rmtree(self._to_be_removed, ignore_errors=True)
            self._to_be_removed = None


@contextmanager
def hire(workplace: Workplace, making: Path) -> Iterator[Crew]:
    """A `Crew` with a folder of its own in `making`; leaving cancels what is not done.

    Parameters
    ----------
    workplace
        The executor, and how many work there.
    making
        A folder of the data directory, which all workers see.
    """
    crew = Crew(workplace, begin_run(making))
    try:
        yield crew
    finally:
        crew.close()
        remove_runs(making)


def _describe(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _explain_end(about: str, error: BaseException) -> str:
    return (
        f"the executor does not take {about} any more ({_describe(error)}): its scheduler is gone, "
        "or it was shut down; the same call goes on from here, once there is another one"
    )
