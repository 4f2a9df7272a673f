"""Work that other processes and machines do, by any executor of `concurrent.futures`.

Read `attempts`, `crew`, `engines`.
"""

from scdiff_data.executors.attempts import Abandoned, remove_runs
from scdiff_data.executors.crew import Crew, Done, hire
from scdiff_data.executors.engines import (
    ENGINES,
    DaskWorkers,
    Engine,
    LocalWorkers,
    SlurmWorkers,
    Workplace,
    check_executor,
    choose_workers,
    count_cores,
)

__all__ = [
    "ENGINES",
    "Abandoned",
    "Crew",
    "DaskWorkers",
    "Done",
    "Engine",
    "LocalWorkers",
    "SlurmWorkers",
    "Workplace",
    "check_executor",
    "choose_workers",
    "count_cores",
    "hire",
    "remove_runs",
]
