"""A file, brought to this machine and checked.

Read `connecting`, `refusals`, `downloads`, `pool`; then `wanted`, `shared_folder`,
`fetch_process`, `fetcher`: files that a process of its own brings.
"""

from scdiff_data.fetching.connecting import connect
from scdiff_data.fetching.downloads import download, is_whole, measure_checksum
from scdiff_data.fetching.fetcher import FileFetcher, Plan
from scdiff_data.fetching.pool import Fetcher, fetching
from scdiff_data.fetching.refusals import (
    OF_BUCKETS,
    Advice,
    check_reachable,
    explain_refusals,
    http_status,
)
from scdiff_data.fetching.shared_folder import RemoteFile

__all__ = [
    "OF_BUCKETS",
    "Advice",
    "Fetcher",
    "FileFetcher",
    "Plan",
    "RemoteFile",
    "check_reachable",
    "connect",
    "download",
    "explain_refusals",
    "fetching",
    "http_status",
    "is_whole",
    "measure_checksum",
]
