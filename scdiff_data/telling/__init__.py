"""What is told while work goes on: how far it is.

Read `progress`.
"""

from scdiff_data.telling.progress import Progress, is_first_rank, tell

__all__ = ["Progress", "is_first_rank", "tell"]
