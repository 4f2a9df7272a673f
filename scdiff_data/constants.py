"""What holds everywhere: the largest count, and the splits in their order."""

SPLITS = ("train", "val", "test")
"""The splits, in the order of their codes and of their rows in the shards."""

MAX_COUNT = 32_767
"""The largest count that int16 holds; larger ones are stored as it, and counted."""
