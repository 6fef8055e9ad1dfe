"""What the OpenAPI document promises holds: for people with Swagger, for programs with checks."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.asking import Asker
from tests.runtime.browser import Browser, running_browser
from tests.runtime.serving import SCHEMA, Served

pytestmark = pytest.mark.contract

INFER = "/v2/models/main.ml.employment/infer"
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


def test_swagger_tries_the_example_out(served: Served, browser: Browser) -> None:
    browser.open(f"http://127.0.0.1:{served.port}/")
    operation = "#operations-Predictions-predict"
    browser.click(f"{operation} .opblock-summary-control")
    browser.click(f"{operation} .try-out__btn")
    browser.click(f"{operation} .execute")
    live = f"{operation} .live-responses-table tbody"
    status = browser.text(f"{live} .response-col_status")
    answer = browser.text(f"{live} .response-col_description pre")
    document = served.client.get("/docs.json").json()
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    rows = content["examples"]["records"]["value"]
    assert status.split()[0] == "200"
    assert json.loads(answer) == served.predict(rows).json()
    assert len(rows) > 0


def test_every_example_works_as_it_stands(asker: Asker) -> None:
    document = asker.get("/docs.json").json()
    tried = 0
    for path, operations in document["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {})
        for media_type, described in content.items():
            for example in described["examples"].values():
                value = example["value"]
                body = value.encode() if isinstance(value, str) else value
                response = asker.post(path, body, content_type=media_type)
                assert response.status_code == 200, (path, response.text)
                assert len(response.content) > 20
                tried += 1
    # /predict 2, /infer with and without a version, /invocations 4 and CSV
    assert tried == 9


def test_names_the_models_inputs(asker: Asker) -> None:
    document = asker.get("/docs.json").json()
    record: dict[str, Any] = document["components"]["schemas"]["Record"]
    assert list(record["properties"]) == list(SCHEMA.names)
    assert record["required"] == ["AGEP", "SEX"]
    assert record["properties"]["AGEP"]["type"] == "integer"
    assert record["properties"]["AGEP"]["description"] == "16 to 95 in training"
    assert record["properties"]["WAGP"]["type"] == ["number", "null"]
    assert INFER in document["paths"]


def test_schemathesis_finds_nothing(served: Served, tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("schemathesis"))
    address = f"http://127.0.0.1:{served.port}/docs.json"
    command = [program, "--config-file", str(CONFIGURATION), "run", address]
    found = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    assert served.process.poll() is None
