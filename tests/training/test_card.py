"""The model card: what it measures, and how it is written."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from modelops_training import Trained, adopt, card, evaluation, inputs, train
from modelops_training.card import FEWEST_ROWS
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC

pytestmark = pytest.mark.unit


class Page(HTMLParser):
    """Collects what a page shows, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [str(value) for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_groups_are_measured_on_the_rows_held_out(trained: Trained) -> None:
    described = card.describe(trained, "employment", dataset="2015", notes="not for decisions")
    held = trained.frame.iloc[trained.held_out]
    group = next(
        each for each in described["groups"] if (each["input"], each["group"]) == ("SEX", "2")
    )
    women = held[held["SEX"] == "2"]
    assert group["rows"] == len(women)
    assert group["metrics"] == evaluation.classification(
        inputs.target_codes(women, trained.schema), trained.answers(women)
    )
    assert described["metrics"] == trained.metrics
    ages = [each for each in described["groups"] if each["input"] == "AGEP"]
    assert len(ages) == 4
    assert sum(each["rows"] for each in ages) == len(held)
    small = [each for each in described["groups"] if each["rows"] < FEWEST_ROWS]
    assert small
    assert not any(each["metrics"] for each in small)
    # What is well calibrated lies on the diagonal, over a tenth of the rows each.
    for point in described["curve"]:
        assert point["predicted"] == pytest.approx(point["came"], abs=0.03)
    assert sum(point["rows"] for point in described["curve"]) == len(held)
    assert next(iter(described["importance"])) == "AGEP"
    assert sum(described["importance"].values()) == pytest.approx(1)
    (weakest,) = [each for each in described["limits"] if "weakest" in each]
    assert "auc" in weakest


def test_it_is_written_for_programs_and_for_people(trained: Trained, tmp_path: Path) -> None:
    later = {2016: {"auc": 0.9}}
    described = card.describe(
        trained, "employment", dataset="2015", notes="<b>not</b> for decisions", later=later
    )
    card.write(described, tmp_path)
    assert json.loads((tmp_path / "model_card.json").read_text()) == described
    text = (tmp_path / "model_card.md").read_text()
    assert "| 2016 | 0.9000 |" in text
    for heading in ("Metrics", "Groups", "Limits", "Inputs"):
        assert f"## {heading}" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) > 60
    page = Page((tmp_path / "model_card.html").read_text())
    assert {"polyline", "circle", "rect", "table"} <= set(page.tags)
    assert not page.fetched  # whole in itself
    assert "<b>not</b> for decisions" in page.text  # shown, not run
    assert "b" not in page.tags


def test_the_same_training_gives_the_same_card(small: Trained) -> None:
    one, two = (card.describe(small, "small", dataset="made up") for _ in range(2))
    assert card.html(one) == card.html(two)
    assert card.markdown(one) == card.markdown(two)


@pytest.mark.parametrize("target", ["price", "kind"])
def test_numbers_and_many_classes_have_a_card(
    mixed: pd.DataFrame, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {"size": {"sensitive": True}}
    columns = ["size", "gaps", "maybe", "colour", target]
    monkeypatch.setattr(card, "FEWEST_ROWS", 20)
    made = train(mixed[columns], target, rounds=5, overrides=overrides)
    described = card.describe(made, "toy", dataset="made up")
    metric = "rmse" if target == "price" else "log_loss"
    assert metric in described["group_metrics"]
    missing = [each for each in described["groups"] if each["group"] == "missing"]
    assert {each["input"] for each in missing} == {"gaps", "maybe", "colour"}
    # Nobody's size is told.
    smallest = f"{mixed['size'].min():g}"
    size = described["data"]["inputs"][0]
    assert (size["minimum"], size["maximum"], size["sensitive"]) == (None, None, True)
    for written in (card.markdown(described), card.html(described)):
        assert smallest not in written
        assert "sensitive" in written
    came = np.average(
        [each["came"] for each in described["curve"]],
        weights=[each["rows"] for each in described["curve"]],
    )
    if target == "price":
        held = made.frame["price"].iloc[made.held_out]
        assert came == pytest.approx(held.mean())
    else:
        assert came == pytest.approx(made.metrics["accuracy"])


@pytest.mark.filterwarnings("ignore::modelops_training.TrainingWarning")
@pytest.mark.parametrize(
    ("model", "target"),
    [
        (LogisticRegression(), "bought"),
        (LinearSVC(), "bought"),  # labels, no probabilities
        (Ridge(), "price"),
    ],
)
def test_a_model_of_ones_own_has_a_card(
    mixed: pd.DataFrame, tmp_path: Path, model: Any, target: str
) -> None:
    rows = mixed[["whole", "flag", "gaps"]].assign(gaps=mixed["gaps"].fillna(0.0))
    model.fit(rows, mixed[target])
    adopted = adopt(model, rows, mixed[target], with_detectors=target == "price")
    described = card.describe(adopted, "mine", dataset="mixed")
    assert described["data"]["measured_rows"] == len(mixed)
    assert described["data"]["measured_on"] == "given"
    assert described["metrics"] == adopted.metrics
    assert bool(described["curve"]) == (not isinstance(model, LinearSVC))
    assert "measured on the rows that it was registered with" in described["limits"][0]
    flagged = next(
        each for each in described["groups"] if (each["input"], each["group"]) == ("flag", "True")
    )
    chosen = adopted.frame[adopted.frame["flag"]]
    assert flagged["rows"] == len(chosen)
    assert flagged["metrics"] == adopted.scored(adopted.truth(chosen), adopted.answers(chosen))
    card.write(described, tmp_path)
    page = Page((tmp_path / "model_card.html").read_text())
    assert ("Predicted and true" in page.text) == bool(described["curve"])
    assert "| given |" in (tmp_path / "model_card.md").read_text()
