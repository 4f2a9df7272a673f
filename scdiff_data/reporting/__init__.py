"""A page about a prepared directory, for those who will train on it or look at it.

Read `survey` (all cells, counted), `sample` (some, compared), `pictures`, `page` (the file's
form), `sections`, `report`.
"""

from scdiff_data.reporting.report import write_data_report

__all__ = ["write_data_report"]
