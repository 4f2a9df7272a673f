"""Where tasks are done: processes of this machine, Dask's workers, jobs of Slurm, or any executor.

executor=None          threads of this process; processes where that is sure to be faster
executor="threads"     threads of this process
executor="local"       LocalWorkers(): processes of this machine
DaskWorkers(address)   workers of a Dask cluster that runs
SlurmWorkers(…)        jobs of Slurm, which dask-jobqueue starts and ends
an Executor            of concurrent.futures: the user's own
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

logger = logging.getLogger(__name__)

_WORTH_PROCESSES = 2_000_000_000
"""Bytes to be fetched from which on processes repay the seconds in which they start."""

_MOST_OF_MEMORY = 0.5
"""Of the machine's memory, what local workers may take together."""

_GUESSED_WORKERS = 8
"""Of an executor that does not tell how many work."""

_SECONDS_TO_ANSWER = 30
"""In which a Dask scheduler must answer."""

_SECONDS_IDLE = 60
"""After which a local worker that nobody gives work ends, as where this process was killed."""


@dataclass(frozen=True)
class Workplace:
    """An executor, and what is known of it.

    Parameters
    ----------
    executor
        Takes the tasks.
    n_workers
        Tasks done at a time, as far as is known.
    n_threads
        Threads of a task at the most; None where the user's setting holds.
    remake
        Makes a pool in place of one that is broken; None if the user must.
    """

    executor: Executor
    n_workers: int
    n_threads: int | None = None
    remake: Callable[[], Executor] | None = None


class Engine(Protocol):
    """What starts workers, and ends them."""

    def open(self, max_memory: int) -> AbstractContextManager[Workplace]:
        """Workers, of which each task may take so many bytes."""
        ...


@dataclass(frozen=True)
class LocalWorkers:
    """Processes of this machine.

    Parameters
    ----------
    n_workers
        How many; None is one a core, and fewer where half of the memory holds fewer times
        `max_memory`. The cores are divided among them.
    """

    n_workers: int | None = None

    def __post_init__(self) -> None:
        if self.n_workers is not None and self.n_workers < 1:
            raise ValueError(f"executor.n_workers must be at least 1, got {self.n_workers}")

    @contextmanager
    def open(self, max_memory: int) -> Iterator[Workplace]:
        """Start them; leaving ends them at once."""
        from loky import ProcessPoolExecutor  # starts processes that do not run the user's script

        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        fitting = max(1, int(_MOST_OF_MEMORY * memory / max_memory))
        n = self.n_workers or min(count_cores(), fitting)
        pools: list[Any] = []

        def make() -> Executor:
            pool: Executor = ProcessPoolExecutor(n, timeout=_SECONDS_IDLE)
            pools.append(pool)
            return pool

        try:
            yield Workplace(make(), n, max(1, count_cores() // n), make)
        finally:
            for pool in pools:
                pool.shutdown(wait=True, kill_workers=True)


@dataclass(frozen=True)
class DaskWorkers:
    """Workers of a Dask cluster that runs.

    Parameters
    ----------
    address
        Of its scheduler, such as `tcp://10.0.0.1:8786`.
    """

    address: str

    def __post_init__(self) -> None:
        if not isinstance(self.address, str) or "://" not in self.address:
            raise ValueError(
                "executor.address must be that of a Dask scheduler, such as "
                f"tcp://10.0.0.1:8786, got {self.address!r}"
            )

    @contextmanager
    def open(self, max_memory: int) -> Iterator[Workplace]:
        """Connect to the scheduler."""
        del max_memory
        distributed = _import_dask("distributed", "dask")
        try:
            client = distributed.Client(
                self.address, timeout=_SECONDS_TO_ANSWER, set_as_default=False
            )
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"no Dask scheduler answers at executor.address={self.address} ({error}): start "
                "one with 'dask scheduler', and workers with 'dask worker ADDRESS'"
            ) from error
        with client:
            yield _join(client)


@dataclass(frozen=True)
class SlurmWorkers:
    """Jobs of Slurm, which dask-jobqueue starts, and which end with the run.

    Parameters
    ----------
    n_jobs
        How many.
    cores, memory, walltime
        Of each: cores, bytes such as `16GB`, and hours, as in `04:00:00`.
    queue, account
        What `sbatch` takes as partition and account; None are the cluster's own.
    options
        What else `dask_jobqueue.SLURMCluster` takes, such as `interface` or `job_script_prologue`.
    """

    n_jobs: int = 4
    cores: int = 4
    memory: str = "16GB"
    walltime: str = "04:00:00"
    queue: str | None = None
    account: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def open(self, max_memory: int) -> Iterator[Workplace]:
        """Ask for the jobs; leaving ends them."""
        del max_memory
        jobqueue = _import_dask("dask_jobqueue", "slurm")
        distributed = _import_dask("distributed", "slurm")
        settings: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("walltime", "queue", "account", "cores", "memory")
        }
        settings |= {"processes": 1, "worker_extra_args": ["--nthreads", "1"]}
        settings |= self.options  # of one process and thread, whose task takes all cores
        with jobqueue.SLURMCluster(**settings) as cluster:
            cluster.scale(jobs=self.n_jobs)
            with distributed.Client(cluster, set_as_default=False) as client:
                place = _join(client)
                yield Workplace(place.executor, self.n_jobs, self.cores)


ENGINES: Mapping[str, type[Engine]] = {
    "local": LocalWorkers,
    "dask": DaskWorkers,
    "slurm": SlurmWorkers,
}
"""What starts workers, by the names that commands have for it."""


def check_executor(given: Any) -> None:
    """Raise ValueError for what is no executor and starts none."""
    if isinstance(given, str) and given in ("threads", "local"):
        return
    if given is None or isinstance(given, Executor) or hasattr(given, "open"):
        return
    raise ValueError(
        "executor must be None, 'threads', 'local', LocalWorkers, DaskWorkers, SlurmWorkers or an "
        f"Executor of concurrent.futures, got {given!r}"
    )


@contextmanager
def choose_workers(given: Any, *, n_bytes: int, max_memory: int) -> Iterator[Workplace | None]:
    """Where tasks are done; None for the threads of this process.

    Parameters
    ----------
    given
        What the user names, see above.
    n_bytes
        What is to be fetched, by which processes are chosen where nothing is named.
    max_memory
        Bytes that a task may take.
    """
    engine: Engine
    if isinstance(given, Executor):
        yield Workplace(given, _count_workers(given))
        return
    if given is None and count_cores() > 2 and n_bytes >= _WORTH_PROCESSES:
        given = "local"
    if given in (None, "threads"):
        yield None
        return
    engine = LocalWorkers() if given == "local" else given
    with engine.open(max_memory) as workplace:
        yield workplace


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _count_workers(executor: Executor) -> int:
    known = getattr(executor, "_max_workers", None)
    client = getattr(executor, "_client", None)
    if known is None and client is not None:
        known = sum(client.nthreads().values())
    return int(known or _GUESSED_WORKERS)


def _join(client: Any) -> Workplace:
    executor = client.get_executor()
    if not client.nthreads():
        logger.warning("no worker has joined %s yet: waiting for one", client.scheduler.address)
    return Workplace(executor, _count_workers(executor))


def _import_dask(name: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"executor={extra} needs {name}: pip install 'scdiff_data[{extra}]'"
        ) from error
