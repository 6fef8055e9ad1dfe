"""`make demo`, on a platform that exists already: what it shows is what the cluster said."""

import json
import re

import httpx
import pytest
from modelops_training.data import records

from demo.__main__ import NAME, NAMESPACE, ROWS
from demo.ground import Ground
from demo.proxy import proxied
from tests.e2e.conftest import Story

pytestmark = pytest.mark.e2e
QUIET, SHIFTED, MOVED = "should stay quiet", "should alarm", "moves the alias"


def shown(story: Story, title: str) -> dict[str, str]:
    """Read the table of `kubectl get modeldeployments` that a step ended with."""
    lines = story.step(title)
    header = next(number for number, line in enumerate(lines) if line.startswith("NAME "))
    return dict(zip(lines[header].split(), lines[header + 1].split(), strict=True))


def test_it_becomes_ready(story: Story) -> None:
    table = shown(story, "kubectl apply")
    assert (table["NAME"], table["MODEL"], table["READY"]) == (NAME, "employment", "True")


def test_later_years_are_no_drift(story: Story) -> None:
    assert f"{ROWS} rows, 0 failed" in "\n".join(story.step(QUIET))
    table = shown(story, QUIET)
    assert (table["DRIFT"], table["OUTLIERS"]) == ("False", "False")


def test_another_population_is(story: Story) -> None:
    assert f"{ROWS} rows, 0 failed" in "\n".join(story.step(SHIFTED))
    assert shown(story, SHIFTED)["DRIFT"] == "True"
    message = story.step(SHIFTED)[-2]
    assert re.match(r"\d+ of 18 features moved past 0\.25: AGEP \(PSI ", message), message


def test_a_moved_alias_rolls_out_without_a_failed_request(story: Story) -> None:
    before, after = shown(story, SHIFTED)["VERSION"], shown(story, MOVED)["VERSION"]
    assert int(after) > int(before)
    (counted,) = (line for line in story.step(MOVED) if "requests answered" in line)
    assert re.search(rf"by version {before}, \d+ by version {after}\), .* 0 failed$", counted)


def test_what_it_left_serves_the_moved_version(story: Story, platform: Ground) -> None:
    after = shown(story, MOVED)["VERSION"]
    with proxied(platform, NAMESPACE, NAME) as url:
        answer = httpx.post(url, json=list(records(2016, limit=1)), timeout=10).json()
    assert str(answer["model"]["version"]) == after
    live = platform.kubectl("-n", NAMESPACE, "get", "modeldeployment", NAME, "-o", "json")
    models = {model["role"]: model["version"] for model in json.loads(live)["status"]["models"]}
    assert models["predictor"] == after


def test_it_says_what_to_try_next(story: Story) -> None:
    said = "\n".join(story.step(MOVED))
    for word in ("Swagger", "MLflow", "describe modeldeployment", "make demo-down"):
        assert word in said
