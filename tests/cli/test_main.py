"""The command line as a whole."""

import subprocess
import sys

import pytest
from click.testing import CliRunner
from modelops_operator.cli.main import main

pytestmark = pytest.mark.unit


def test_each_command_tells_what_it_does() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    lines = done.output.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == ["build", "history", "image", "report", "serve"]
    assert all(len(line.split()) > 3 for line in lines)
    assert CliRunner().invoke(main, ["sreve"]).exit_code == 2


def test_the_server_at_a_desk_waits_for_no_library() -> None:
    loaded = "import sys, modelops_operator.cli.commands.serve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True)
    heavy = {"aiohttp", "httpx", "kubernetes", "mlflow", "numpy", "pydantic", "rich"}
    assert not heavy & {*done.stdout.decode().split()}
