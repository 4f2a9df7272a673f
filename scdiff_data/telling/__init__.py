"""What is told while work goes on: how far it is.

Read `compiling_notice`, `progress`.
"""

from scdiff_data.telling.progress import Progress, has_screen, is_first_rank, tell

__all__ = ["Progress", "has_screen", "is_first_rank", "tell"]
