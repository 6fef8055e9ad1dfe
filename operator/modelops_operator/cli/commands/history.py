"""`modelops history`."""

import asyncio
import json

import click

from modelops_operator.cli.failing import told
from modelops_operator.cli.telling import UntoldError, revisions, table


@click.command()
@click.argument("name")
@click.option("-n", "--namespace", help="By default that of the kubeconfig's context.")
@click.option("--context", help="Context of the kubeconfig; by default the current one.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def history(name: str, namespace: str | None, context: str | None, output: str) -> None:
    """List the last revisions of a ModelDeployment: who asked, when, and what became of them."""
    with told(UntoldError):
        entries = asyncio.run(revisions(name, namespace, context))
    click.echo(json.dumps(entries, indent=2) if output == "json" else table(entries))
