"""A file, brought to this machine and checked.

Read `downloads`, `pool`.
"""

from scdiff_data.fetching.downloads import download
from scdiff_data.fetching.pool import Fetcher, fetching

__all__ = ["Fetcher", "download", "fetching"]
