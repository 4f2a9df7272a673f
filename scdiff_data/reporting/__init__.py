"""What a prepared directory holds, finished or not, for those who will train on it or look at it.

Read `survey` (all cells, counted), `sample` (some, compared), `pictures`. Of these and of `state`
(finished or not), `text` and `holding` make a card; `page` (the file's form), `sections` and
`report` make a page.
"""

from scdiff_data.reporting.holding import DataCard, describe
from scdiff_data.reporting.report import write_data_report

__all__ = ["DataCard", "describe", "write_data_report"]
