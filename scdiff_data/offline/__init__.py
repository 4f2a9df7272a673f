"""Sources that need no network: real cells that come with scanpy, and simulated ones.

Read `local_bucket`, `pbmc`, `simulated`.
"""

from scdiff_data.offline.pbmc import Pbmc
from scdiff_data.offline.simulated import SimulatedAtlas

__all__ = ["Pbmc", "SimulatedAtlas"]
