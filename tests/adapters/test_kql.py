"""The queries as Microsoft's own parser reads them, against the schema of ContainerLogV2."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from modelops_operator.adapters import kql
from modelops_operator.adapters.origin import CONTAINER

from tests.log_analytics import RULE, SUMMARY

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
SUMMARISED = kql.telemetry(
    NAMESPACES,
    cluster="",
    since=datetime(2026, 3, 1, tzinfo=UTC),
    page=5000,
    summary=SUMMARY,
)
PRESENCE = kql.presence(NAMESPACES, cluster="")


LINES = [
    ["Ingested", "datetime"],
    ["PodNamespace", "string"],
    ["PodName", "string"],
    ["Line", "string"],
]
COPIED = [
    ["TimeGenerated", "datetime"],
    ["PodNamespace", "string"],
    ["PodName", "string"],
    ["Line", "string"],
    ["Cluster", "string"],
]
COUNTS = [
    ["PodNamespace", "string"],
    ["Logs", "long"],
    ["Served", "long"],
    ["Telemetry", "long"],
]


def package() -> Path:
    """Install the parser of the version in the lock, once for all checkouts."""
    lock = json.loads((PARSER / "package-lock.json").read_text())
    name = "node_modules/@kusto/language-service-next"
    version = lock["packages"][name]["version"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "modelops" / f"kusto-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / name / "package.json").exists():
        for file in ("package.json", "package-lock.json"):
            shutil.copy(PARSER / file, folder)
        subprocess.run(
            [PROGRAMS / "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            env=ENVIRONMENT,
            check=True,
        )
    return folder / name


Parser = Callable[[str, str, str], Any]


@pytest.fixture(scope="module")
def parsed() -> Iterator[Parser]:
    """Give diagnostics and columns of a query of a table with a schema."""
    with subprocess.Popen(
        [PROGRAMS / "node", str(PARSER / "check.js"), str(package())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asks, answers = process.stdin, process.stdout

        def ask(query: str, table: str, schema: str) -> Any:
            asks.write(json.dumps({"table": table, "schema": schema, "query": query}) + "\n")
            asks.flush()
            return json.loads(answers.readline())

        yield ask


@pytest.mark.parametrize("message", ["dynamic", "string"])
@pytest.mark.parametrize(
    ("query", "columns"),
    [(TELEMETRY, LINES), (PRESENCE, COUNTS), (RULE, COPIED)],
    ids=["telemetry", "presence", "rule"],
)
def test_microsoft_s_parser_finds_nothing(
    parsed: Parser, query: str, columns: list[list[str]], message: str
) -> None:
    found = parsed(query, "ContainerLogV2", SCHEMA.format(message=message))
    assert found == {"diagnostics": [], "columns": columns}


def test_it_finds_nothing_in_the_question_to_the_table_of_the_rule(parsed: Parser) -> None:
    schema = ", ".join(f"{name}: {kind}" for name, kind in COPIED)
    found = parsed(SUMMARISED, SUMMARY, f"({schema}, _RuleName: string, _BinSize: int)")
    assert found == {"diagnostics": [], "columns": LINES}


def test_the_parser_would_find_something(parsed: Parser) -> None:
    wrong = TELEMETRY.replace("PodName,", "PodNam,")
    (found,) = parsed(wrong, "ContainerLogV2", SCHEMA.format(message="dynamic"))["diagnostics"]
    assert "PodNam" in found


def test_the_rule_looks_for_what_the_reader_does() -> None:
    assert f'ContainerName == "{CONTAINER}"' in RULE
    assert 'LogMessage has "mdw1"' in RULE
    assert 'LogMessage has "mdw1"' in TELEMETRY


def test_every_text_is_parsed() -> None:
    texts = {path.stem for path in Path(kql.__file__).parent.glob("*.kql")}
    assert texts == {"telemetry", "presence", "rule", "summary"}


def test_values_are_quoted() -> None:
    assert 'dynamic(["no \\"name\\"", "prod", "staging"])' in TELEMETRY
    assert "let since = datetime(2026-03-01T00:00:00.000000Z);" in TELEMETRY
    assert TELEMETRY.endswith("| top 5000 by Ingested asc\n")
