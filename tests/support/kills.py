"""A run of the atlas that kills itself."""

KILL_SCRIPT = """
import os, signal, sys
import scdiff_data.{module} as module
from scdiff_data import Recipe, ScBaseCount, prepare
from scdiff_data.fetching import downloads
from support.cases import ATLAS_SETTINGS

real = module.{function}
calls = 0

def kill_at(*args, **kwargs):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)

module.{function} = kill_at
downloads.RANGE_BYTES = 4096
prepare(Recipe(source=ScBaseCount(url=sys.argv[1]), **ATLAS_SETTINGS), sys.argv[2], n_threads=2)
"""
"""Takes the bucket and the data directory; dies before a call of a function of a module."""
