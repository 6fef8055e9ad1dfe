"""The queries as Microsoft's own parser reads them, against the schema of ContainerLogV2."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from modelops_operator.adapters import kql

pytestmark = pytest.mark.contract

PARSER = Path(__file__).parents[1] / "kusto"
PROGRAMS = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}  # npm looks for node
SCHEMA = (
    "(TimeGenerated: datetime, Computer: string, ContainerId: string, ContainerName: string,"
    " PodName: string, PodNamespace: string, LogMessage: {message}, LogSource: string,"
    " LogLevel: string, KubernetesMetadata: dynamic, TenantId: string, SourceSystem: string,"
    " Type: string, _ResourceId: string, _SubscriptionId: string)"
)
NAMESPACES = ("staging", "prod", 'no "name"')
TELEMETRY = kql.telemetry(
    NAMESPACES, cluster="/subscriptions/s", since=datetime(2026, 3, 1, tzinfo=UTC), page=5000
)
PRESENCE = kql.presence(NAMESPACES, cluster="")


@pytest.fixture(scope="module")
def parser() -> Path:
    """Install the parser of the version in the lock, once for all checkouts."""
    lock = json.loads((PARSER / "package-lock.json").read_text())
    package = "node_modules/@kusto/language-service-next"
    version = lock["packages"][package]["version"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "modelops" / f"kusto-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / package / "package.json").exists():
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PARSER / name, folder)
        subprocess.run(
            [PROGRAMS / "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            env=ENVIRONMENT,
            check=True,
        )
    return folder / package


def parsed(parser: Path, query: str, message: str = "dynamic") -> Any:
    """Give diagnostics and columns."""
    question = {
        "table": "ContainerLogV2",
        "schema": SCHEMA.format(message=message),
        "query": query,
    }
    done = subprocess.run(
        [PROGRAMS / "node", str(PARSER / "check.js"), str(parser)],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("message", ["dynamic", "string"])
@pytest.mark.parametrize(
    ("query", "columns"),
    [
        (
            TELEMETRY,
            [
                ["Ingested", "datetime"],
                ["PodNamespace", "string"],
                ["PodName", "string"],
                ["Line", "string"],
            ],
        ),
        (
            PRESENCE,
            [
                ["PodNamespace", "string"],
                ["Logs", "long"],
                ["Served", "long"],
                ["Telemetry", "long"],
            ],
        ),
    ],
    ids=["telemetry", "presence"],
)
def test_microsoft_s_parser_finds_nothing(
    parser: Path, query: str, columns: list[list[str]], message: str
) -> None:
    assert parsed(parser, query, message) == {"diagnostics": [], "columns": columns}


def test_the_parser_would_find_something(parser: Path) -> None:
    (found,) = parsed(parser, TELEMETRY.replace("PodName,", "PodNam,"))["diagnostics"]
    assert "PodNam" in found


def test_every_text_is_parsed() -> None:
    texts = {path.stem for path in Path(kql.__file__).parent.glob("*.kql")}
    assert texts == {"telemetry", "presence"}


def test_values_are_quoted() -> None:
    assert 'dynamic(["no \\"name\\"", "prod", "staging"])' in TELEMETRY
    assert "let since = datetime(2026-03-01T00:00:00.000000Z);" in TELEMETRY
    assert TELEMETRY.endswith("| top 5000 by Ingested asc\n")
