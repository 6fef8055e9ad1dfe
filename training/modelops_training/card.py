"""The model card: data, metrics by group and limits, for people and for programs.

After M. Mitchell and others, "Model Cards for Model Reporting", 2019. Everything in it is measured
on the rows held out, or, of a user's own model, on those that were given; the same training gives
the same card. It is one dictionary, which two templates write as Markdown and as an HTML page that
needs nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from modelops_runtime.schema import Input
from numpy.typing import NDArray

from modelops_training import inputs
from modelops_training.training import Models, Trained

FEWEST_ROWS: Final = 100
"""Of smaller groups no metrics are told: they would be noise."""
MOST_LEVELS: Final = 12
"""Categories with more of them make no groups."""
QUARTERS: Final = np.linspace(0, 1, 5)
CURVE_POINTS: Final = 10
_TELLING: Final = ("auc", "r2")
"""Metrics by which groups are compared, the more the better."""
FILES: Final = ("model_card.json", "model_card.md", "model_card.html")


def describe(
    trained: Models,
    name: str,
    *,
    dataset: str,
    notes: str = "",
    later: Mapping[int, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """Describe a training as JSON; `later` has the metrics of later rows by step."""
    held = trained.frame.iloc[trained.shown]
    truth, answers = trained.truth(held), trained.shown_answers
    groups = list(_groups(trained, held, truth, answers))
    return {
        "model": {
            "name": name,
            "train_id": trained.train_id,
            "task": trained.schema.output.kind,
            "target": trained.schema.output.name,
            "classes": list(trained.schema.output.classes or ()),
            "notes": notes,
            "parameters": dict(trained.params),
        },
        "data": {
            "name": dataset,
            "sha256": trained.data_digest,
            "rows": len(trained.frame),
            "measured_rows": len(held),
            "measured_on": trained.measured_on.replace("_", " "),
            "inputs": [
                _input(column, _missing(trained, place))
                for place, column in enumerate(trained.schema.inputs)
            ],
        },
        "metrics": dict(trained.metrics),
        "later": {str(step): dict(metrics) for step, metrics in (later or {}).items()},
        "groups": groups,
        "group_metrics": [
            each for each in trained.metrics if any(each in group["metrics"] for group in groups)
        ],
        "curve": _curve(trained, truth, answers),
        "importance": _importance(trained),
        "limits": list(_limits(trained, groups)),
    }


def write(card: Mapping[str, Any], folder: Path) -> None:
    """Write the card into a folder: as JSON, as Markdown and as a page."""
    content = orjson.dumps(card, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode()
    for name, text in zip(FILES, (content, markdown(card), html(card)), strict=True):
        (folder / name).write_text(text, encoding="utf-8")


def markdown(card: Mapping[str, Any]) -> str:
    """Write the card as Markdown."""
    return _templates().get_template("card.md.jinja").render(card)


def html(card: Mapping[str, Any]) -> str:
    """Write the card as an HTML page with plots, whole in itself."""
    return _templates().get_template("card.html.jinja").render(card)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("modelops_training"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


# --- what it tells -------------------------------------------------------------------------


def _missing(trained: Models, place: int) -> float:
    """Give the share of an input that is missing in the reference data."""
    histogram = trained.profile.features[place].histogram
    return histogram.missing / max(histogram.total, 1)


def _input(column: Input, missing: float) -> dict[str, Any]:
    return {
        "name": column.name,
        "kind": column.kind,
        "unit": column.unit,
        # The least and the largest value are somebody's.
        "minimum": None if column.sensitive else column.minimum,
        "maximum": None if column.sensitive else column.maximum,
        "levels": list(column.levels),
        "missing": missing,
        "sensitive": column.sensitive,
    }


def _groups(
    trained: Models, held: pd.DataFrame, truth: NDArray[Any], answers: NDArray[Any]
) -> Iterator[dict[str, Any]]:
    """Measure the rows of each category, and of each quarter of the numbers."""
    matrix = inputs.encode(held, trained.schema)
    for column, values in zip(trained.schema.inputs, matrix.T, strict=True):
        for label, chosen in _parts(values, column):
            count = int(chosen.sum())
            told = count >= FEWEST_ROWS
            metrics = trained.scored(truth[chosen], answers[chosen]) if told else {}
            yield {"input": column.name, "group": label, "rows": count, "metrics": metrics}


def _parts(values: NDArray[np.float64], column: Input) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Name parts of the rows by a column of the matrix, (n,), and tell which rows each has."""
    if column.kind == "category":
        if len(column.levels) <= MOST_LEVELS:
            for code, level in enumerate(column.levels):
                yield level, values == code
    elif not column.sensitive:
        edges = np.unique(np.nanquantile(values, QUARTERS, method="lower"))
        places = np.searchsorted(edges[1:-1], values, side="right")
        for place, (low, high) in enumerate(pairwise(edges)):
            end = "to" if place == len(edges) - 2 else "to below"
            yield f"{low:g} {end} {high:g}", (places == place) & ~np.isnan(values)
    if (missing := np.isnan(values)).any():
        yield "missing", missing


def _curve(trained: Models, truth: NDArray[Any], answers: NDArray[Any]) -> list[dict[str, float]]:
    """Compare what was predicted with what came, in tenths of the rows by what was predicted.

    That is the probability of the second class of two, of the predicted one of more, or a value.
    Labels alone tell no such thing.
    """
    if trained.schema.output.kind == "classifier" and answers.ndim == 1:
        return []
    if answers.ndim == 2:
        binary = answers.shape[1] == 2
        told = answers[:, 1] if binary else answers.max(axis=1)
        came = truth if binary else answers.argmax(axis=1) == truth
    else:
        told, came = answers, truth
    order = np.argsort(told, kind="stable")
    return [
        {
            "predicted": float(told[part].mean()),
            "came": float(came[part].mean()),
            "rows": len(part),
        }
        for part in np.array_split(order, CURVE_POINTS)
        if len(part)
    ]


def _importance(trained: Models) -> dict[str, float]:
    """Give the share that each input has in what the trees gained by splitting, largest first.

    Of a user's own model nothing is told.
    """
    if not isinstance(trained, Trained):
        return {}
    gains = trained.booster.feature_importance("gain")
    total = gains.sum() or 1.0
    shares = sorted(zip(gains / total, trained.schema.names, strict=True), reverse=True)
    return {name: float(share) for share, name in shares}


def _limits(trained: Models, groups: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not isinstance(trained, Trained):
        yield (
            "It was measured on the rows that it was registered with: where it was fitted on them,"
            " it is less good on others."
        )
    for column in trained.schema.inputs:
        if column.kind == "number" and not column.sensitive:
            unit = f" {column.unit}" if column.unit else ""
            yield (
                f"{column.name} was {column.minimum:g} to {column.maximum:g}{unit} in training: "
                "beyond that it guesses."
            )
    small = [f"{each['input']} {each['group']}" for each in groups if not each["metrics"]]
    if small:
        yield f"Not measured, with fewer than {FEWEST_ROWS} rows: {', '.join(small)}."
    yield from _weakest(trained, groups)
    missed = 1 - trained.metrics.get("outlier_recall_6_sigma", 1.0)
    if missed:
        yield (
            f"The outlier detector misses {missed:.0%} of single numbers that are six standard "
            "deviations off."
        )
    if not any(column.kind == "number" for column in trained.schema.inputs):
        yield "There are no numbers: the outlier detector sees unusual combinations only."


def _weakest(trained: Models, groups: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    metric = next((each for each in _TELLING if each in trained.metrics), None)
    told = [each for each in groups if metric in each["metrics"]]
    if metric is None or not told:
        return
    worst = min(told, key=lambda each: float(each["metrics"][metric]))
    yield (
        f"It is weakest where {worst['input']} is {worst['group']}: {metric} "
        f"{worst['metrics'][metric]:.3f}, overall {trained.metrics[metric]:.3f}."
    )
