"""Results as rows, tables and one self-contained page with pictures."""

from jfusion.report.content import Degradation, SceneSection, StageView
from jfusion.report.figures import Picture
from jfusion.report.page import write_page
from jfusion.report.results import Row, read_results, table, write_results

__all__ = [
    "Degradation",
    "Picture",
    "Row",
    "SceneSection",
    "StageView",
    "read_results",
    "table",
    "write_page",
    "write_results",
]
