"""That loops are being compiled: the first run of an installation takes seconds more."""

from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def announce_compiling(tell: Callable[[str], object]) -> None:
    """Have numba say once, in this process, that it compiles a loop of ours; kept ones are silent.

    Call it where numba is loaded already: it takes half a second.
    """
    from numba.core.event import Listener, register

    class Notice(Listener):  # type: ignore[misc]
        def __init__(self) -> None:
            self._is_told = False

        def on_start(self, event: Any) -> None:
            module = str(event.data["dispatcher"].py_func.__module__)
            if module.startswith("scdiff_data.") and not self._is_told:
                self._is_told = True
                tell("compiling loops, once for this installation: this takes some seconds")

        def on_end(self, event: Any) -> None:
            pass

    register("numba:compile", Notice())
