"""`modelops report`."""

import asyncio
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from modelops_operator.api.config import ConfigError, ProcessConfig
from modelops_operator.cli import report_page, report_text, reporting
from modelops_operator.cli.failing import told
from modelops_operator.cli.reporting import ReportError


@click.command()
@click.argument("name")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    default="report.html",
    show_default=True,
    help="Page to write; - prints the report for a terminal.",
)
@click.option("--text", is_flag=True, help="Print the report for a terminal, and write no page.")
@click.option("--context", help="Context of the kubeconfig; by default the current one.")
@click.option(
    "--operator-namespace",
    default=ProcessConfig().namespace,
    show_default=True,
    help="Where the operator's configuration is read, for what no option says.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The operator's configuration instead.",
)
@click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    metavar="URI",
    default="",
    help="Where MLflow is reached from here; by default where the operator reaches it.",
)
def report(output: str, text: bool, **options: Any) -> None:  # noqa: FBT001 (click's)
    """Tell how a ModelDeployment fares: verdicts, features against their reference, traffic.

    It is judged anew, by the telemetry that the operator reads.
    """
    with told(ConfigError, ReportError):
        found = asyncio.run(reporting.gather(reporting.Wish(**options)))
    if text or output == "-":
        report_text.show(found, Console())
        return
    try:
        Path(output).write_text(report_page.page(found), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from error
    click.echo(output)
