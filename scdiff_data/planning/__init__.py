"""What a run would draw, fetch and store, worked out before it starts.

Read `reach`, `forecast`, `planned`.
"""

from scdiff_data.planning.planned import Plan, make_plan

__all__ = ["Plan", "make_plan"]
