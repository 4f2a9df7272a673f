"""A file, brought to this machine and checked.

Read `refusals`, `downloads`, `pool`.
"""

from scdiff_data.fetching.downloads import download, is_whole
from scdiff_data.fetching.pool import Fetcher, fetching
from scdiff_data.fetching.refusals import check_reachable, explain_refusals

__all__ = ["Fetcher", "check_reachable", "download", "explain_refusals", "fetching", "is_whole"]
