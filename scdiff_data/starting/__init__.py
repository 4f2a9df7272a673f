"""How a script starts, before anything large is loaded: its run's name, settings and mistakes.

Read `naming`, `mistakes`, `frameworks`.
"""

from scdiff_data.starting.frameworks import load_frameworks
from scdiff_data.starting.mistakes import (
    describe_mistake,
    explain_mistakes,
    open_settings,
    run_main,
)
from scdiff_data.starting.naming import RUN_NAME, name_run

__all__ = [
    "RUN_NAME",
    "describe_mistake",
    "explain_mistakes",
    "load_frameworks",
    "name_run",
    "open_settings",
    "run_main",
]
