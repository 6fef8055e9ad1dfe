"""The Bento's files."""

import subprocess
import sys
from typing import Any

import orjson
import pytest
import yaml
from modelops_runtime import bento

pytestmark = pytest.mark.unit

MODELS = {"predictor": "main.ml.employment/12", "drift": "employment_drift/3"}


def skeleton(**changes: Any) -> dict[str, bytes]:
    given = {"name": "employment", "version": "12", "python": "3.11", "models": MODELS}
    return bento.skeleton(**(given | changes))


def test_the_same_input_gives_the_same_bytes() -> None:
    assert skeleton() == skeleton()
    turned = dict(reversed(MODELS.items()))
    again = bento.skeleton(name="employment", version="12", python="3.11", models=turned)
    assert list(again.items()) == list(skeleton().items())


def test_describes_the_service() -> None:
    description = yaml.safe_load(skeleton()["bento.yaml"])
    assert description["service"] == "service:ModelServer"
    assert description["services"][0]["name"] == bento.SERVICE_NAME
    assert description["labels"]["modelops.dev/predictor"] == "main.ml.employment/12"
    assert orjson.loads(skeleton()["src/models/models.json"]) == MODELS


@pytest.mark.parametrize(
    ("name", "tag"),
    [("employment", "employment"), ("Main.ML_x", "main-ml-x"), ("--", "model"), ("ä", "model")],
)
def test_names_become_tags_that_bentoml_accepts(name: str, tag: str) -> None:
    assert yaml.safe_load(skeleton(name=name)["bento.yaml"])["name"] == tag


def test_needs_a_predictor() -> None:
    with pytest.raises(ValueError, match="needs a predictor; there is drift"):
        bento.skeleton(name="x", version="1", python="3.11", models={"drift": "x/1"})


def test_idle_connections_are_kept_longer_than_clients_keep_them() -> None:
    command = bento.entrypoint()
    # Go's clients keep them for 90 seconds, Java's and Python's for less.
    assert int(command[command.index("--timeout-keep-alive") + 1]) > 90


def test_the_light_half_imports_numpy_and_orjson_only() -> None:
    program = """
import sys
from modelops_runtime import bento, flavor, outlier, profile, schema, telemetry
known = {"numpy", "orjson", "modelops_runtime"}
roots = {name.partition(".")[0] for name in sys.modules}
files = {n for n in roots if "site-packages" in (getattr(sys.modules[n], "__file__", "") or "")}
print(sorted(files - known))
"""
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
