"""`modelops serve`: what was registered, served at a desk."""

import signal
import socket
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from modelops_operator.adapters.mlflow import is_on_this_disk
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import ImageModel
from modelops_operator.builder.models import FetchedModel
from modelops_operator.cli.local_server import ServeError
from modelops_operator.cli.main import main
from modelops_operator.cli.serving import check_requirements
from modelops_training import Registration
from modelops_training.data import REFERENCE_YEAR, records

from tests.training.desk import PATIENCE, serve

# MLflow compares the columns of an input example with a range, which pandas 3 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Operation with range is deprecated")


@pytest.mark.contract
def test_what_was_registered_is_served_until_ctrl_c(
    registered: Registration, server: str, tmp_path: Path
) -> None:
    log, scratch = tmp_path / "log", tmp_path / "scratch"
    scratch.mkdir()
    process, url = serve("models:/employment@candidate", server, log, TMPDIR=str(scratch))
    rows = list(records(REFERENCE_YEAR, limit=20))
    with httpx.Client(base_url=url, timeout=PATIENCE) as client:
        answer = client.post("/predict", json=rows)
        served = client.get("/metadata").json()["models"]
        page = client.get("/").text
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["probabilities"]) == len(answer.json()["outliers"]) == len(rows)
    assert served == {each.role: f"{each.name}/{each.version}" for each in registered.versions}
    assert "swagger" in page.lower()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert '"n":20' in log.read_text()  # its last line of telemetry
    assert not list(scratch.iterdir())
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


@pytest.mark.unit
def test_what_a_model_lacks_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    wanted = ImageModel(role=Role.PREDICTOR, name="loans", version="3", source="unknown")
    (tmp_path / "requirements.txt").write_text("mlflow==3.17.2\nnumpy<3\nno-such-package==1.5\n")
    told: list[str] = []
    with pytest.raises(ServeError, match=r"uv run --with 'no-such-package==1.5' modelops serve"):
        check_requirements(FetchedModel(wanted, tmp_path, fast=False), told.append)
    assert "model loans version 3 has no fast form" in told[0]
    check_requirements(FetchedModel(wanted, tmp_path, fast=True), told.append)
    assert len(told) == 1


@pytest.mark.unit
def test_requirements_that_no_image_is_built_of_are_told_and_served(tmp_path: Path) -> None:
    wanted = ImageModel(role=Role.PREDICTOR, name="loans", version="3", source="unknown")
    (tmp_path / "requirements.txt").write_text("numpy\n")
    told: list[str] = []
    check_requirements(FetchedModel(wanted, tmp_path, fast=False), told.append)
    assert "no image can be built of it" in told[1]


@pytest.mark.unit
def test_a_port_of_somebody_else_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = CliRunner().invoke(main, ["serve", "a@b", "--port", port])
    assert done.exit_code == 1
    assert f"port {port} cannot be had" in done.output
    assert "--port" in done.output


@pytest.mark.unit
@pytest.mark.parametrize(
    ("uri", "here"),
    [("sqlite:///mlflow.db", True), ("./mlruns", True), ("http://mlflow", False)],
)
def test_files_of_a_registry_on_this_disk_are_read(uri: str, here: bool) -> None:  # noqa: FBT001
    assert is_on_this_disk(uri) is here
