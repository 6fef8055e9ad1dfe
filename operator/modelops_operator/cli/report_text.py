"""A report for the terminal, with plots of characters."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelops_operator.api.conditions import Condition, ConditionType
from modelops_operator.api.resources import Severity
from modelops_operator.core.health.report import Feature, Report, Series, facts

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
LONGEST: Final = 60
"""Characters of a plot through time: the last windows."""
_ALARMS: Final = {ConditionType.DRIFT_DETECTED, ConditionType.OUTLIERS_DETECTED}
"""Conditions that are bad when they are True; the others are when they are False."""
_COLOURS: Final = {Severity.ALERT: "red", Severity.WARN: "yellow", Severity.NONE: ""}


def alarming(condition: Condition) -> bool:
    """Whether a condition tells of something bad."""
    return condition.status == ("True" if condition.type in _ALARMS else "False")


def show(report: Report, console: Console) -> None:
    """Print the report."""
    subject = report.subject
    console.print(Text(f"{subject.namespace}/{subject.name}", style="bold"))
    for name, value in facts(report).items():
        console.print(Text(f"{name:<10}{value}"), overflow="fold")
    for model in subject.release.models:
        console.print(Text(f"{model.role:<10}{model.name} {model.version}"))
    for each in (_verdicts(report), _through_time(report.series), _features(report.features)):
        if each.row_count:
            console.print()
            console.print(each)
    if report.untold:
        console.print(Text(f"nothing was counted of {', '.join(report.untold)}"))


def _verdicts(report: Report) -> Table:
    table = Table("condition", "status", "reason", "message", box=None, pad_edge=False)
    for each in report.health.conditions:
        style = "red" if alarming(each) else ""
        words = (each.type, each.status, str(each.reason), each.message)
        table.add_row(*(Text(str(word), style=style) for word in words))
    return table


def _through_time(series: Sequence[Series]) -> Table:
    table = Table("through time", "", "last", "most", box=None, pad_edge=False)
    for each in series:
        values = [value for _, value in each.points]
        if values:
            plot = bars(values[-LONGEST:], max([*values, *each.bounds]))
            table.add_row(Text(each.title), plot, each.told(values[-1]), each.told(max(values)))
    return table


def _features(features: Sequence[Feature]) -> Table:
    table = Table("feature", "PSI", "", "reference", "now", box=None, pad_edge=False)
    for each in features:
        most = max(max(one.expected, one.found) for one in each.bins)
        table.add_row(
            Text(each.name, style=_COLOURS[each.severity]),
            f"{each.psi:.2f}",
            each.told,
            bars((one.expected for one in each.bins), most),
            bars((one.found for one in each.bins), most),
        )
    return table


def bars(values: Iterable[float], most: float | None = None) -> str:
    """Draw values, none below 0, as characters of different height; only 0 is drawn as nothing."""
    known = list(values)
    top = (max(known, default=0.0) if most is None else most) or 1.0
    steps = len(BLOCKS) - 1
    return "".join(BLOCKS[min(-int(-value * steps // top), steps)] for value in known)
