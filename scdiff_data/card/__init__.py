"""What a prepared directory holds, finished or not, as text, as JSON and as a picture.

Read `state`, `cells`, `holding`, `text`, `figure`.
"""

from scdiff_data.card.holding import DataCard, describe

__all__ = ["DataCard", "describe"]
