"""A prepared directory in a bucket: sent there, and brought to other machines shard by shard.

In the bucket lie `config.json` and the files that training reads, each under a name that holds the
beginning of its checksum: `processed/batch_0000.0123456789abcdef.h5`. `config.json` comes last, so
a bucket is whole or has none. A local copy is a directory like any other, but its shards come when
they are needed; `bucket.json` says from where.

Read `bucket`, `sending`, `copying`, `copies`.
"""

from scdiff_data.remote.bucket import PreparedBucket
from scdiff_data.remote.copies import ShardCopies, find_copies
from scdiff_data.remote.copying import fetch_processed, refuse_copy, take_copy
from scdiff_data.remote.sending import send

__all__ = [
    "PreparedBucket",
    "ShardCopies",
    "fetch_processed",
    "find_copies",
    "refuse_copy",
    "send",
    "take_copy",
]
