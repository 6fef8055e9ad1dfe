"""A report as one HTML page with plots, whole in itself: it opens without a network."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from modelops_operator.api.conditions import timestamp
from modelops_operator.cli.report_text import alarming
from modelops_operator.core.health.report import Report, facts


def page(report: Report) -> str:
    """Write the page."""
    windows = [window for each in report.series for window, _ in each.points]
    start = min((window.start for window in windows), default=report.now)
    end = max((window.end for window in windows), default=report.now)
    return (
        _templates()
        .get_template("report.html.jinja")
        .render(report=report, facts=facts(report), start=start, end=end, span=end - start)
    )


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("modelops_operator.cli"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["moment"] = timestamp
    templates.tests["alarming"] = alarming
    return templates
