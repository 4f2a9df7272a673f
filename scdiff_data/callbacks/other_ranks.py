"""When another rank is gone: no rank lives on, and the first one has time to save.

A rank that trains notices: the next message between ranks fails. One that validates may send none
for hours, and one that waits on a GPU cannot notice.
"""

import logging
import os
import time
from collections.abc import Callable
from threading import Thread

from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

logger = logging.getLogger(__name__)

_LAUNCHER = "SCDIFF_LAUNCHER"
"""Variable of the environment by which a process tells its id to the ranks that it starts."""

_SECONDS = 1.0
"""Between two looks at the process that started this one."""


def end_with_launcher(is_needed: Callable[[], bool]) -> None:
    """End this process soon after the one that started it is gone, while that one is needed.

    For ranks that Lightning starts: the first rank starts the others, as its children. It looks
    after them, but not once it is killed. torchrun and Slurm look after all theirs.
    """
    launcher = os.environ.get(_LAUNCHER)
    is_launched = "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
    if launcher and is_launched:
        if int(launcher) != os.getpid():
            Thread(target=_watch, args=(int(launcher), is_needed), daemon=True).start()
    else:
        os.environ[_LAUNCHER] = str(os.getpid())


def _watch(launcher: int, is_needed: Callable[[], bool]) -> None:
    while True:
        if os.getppid() != launcher and is_needed():
            logger.error("the process that started this rank is gone: this one ends, too")
            os._exit(1)  # the main thread may wait in a message for ever
        time.sleep(_SECONDS)


def call_off_observer(trainer: Trainer) -> None:
    """Keep Lightning from killing this rank because another one has ended.

    It looks after the ranks that this one has started every five seconds; what is being saved then
    is lost, and so are this rank's exit code and its message.
    """
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        launcher.procs.clear()  # the observer's list, too
