"""`modelops serve`.

What takes long to import is imported while the server loads its own libraries.
"""

import asyncio
import signal
import sys
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from modelops_runtime import bento

from modelops_operator.api.facts import Role
from modelops_operator.cli import local_server
from modelops_operator.cli.naming import DETECTORS, ModelArgument


@click.command()
@click.argument("model", metavar="NAME@ALIAS")
@click.option(
    "--drift", metavar="NAME@ALIAS", help="Its drift detector; by default that of its training."
)
@click.option("--outlier", metavar="NAME@ALIAS", help="Its outlier detector; the same.")
@click.option(
    "--tracking-uri", envvar="MLFLOW_TRACKING_URI", metavar="URI", help="By default MLflow's own."
)
@click.option("--port", type=click.IntRange(0, 65535), default=bento.PORT, show_default=True)
@click.option("--no-open", is_flag=True, help="Open no browser.")
def serve(model: str, **options: Any) -> None:
    """Serve a registered model on this machine, by the service that answers in the pods.

    NAME/VERSION is taken as well, each with or without MLflow's `models:/` before it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    named = {role: options[role] for role in DETECTORS if options[role]}
    try:
        predictor = ModelArgument.parse(model)
        detectors = {role: ModelArgument.parse(text) for role, text in named.items()}
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with suppress(KeyboardInterrupt):
        with local_server.started(options["port"]) as (server, folder):
            _lay_out(predictor, detectors, options["tracking_uri"], folder)
            server.serve(folder)
            click.echo(f"{server.url} (Ctrl-C ends it)")
            if sys.stdout.isatty() and not options["no_open"]:
                webbrowser.open(server.url)
            code = server.wait()
        raise click.ClickException(f"the server has ended by itself ({code}), see above")


def _lay_out(
    predictor: ModelArgument,
    detectors: Mapping[Role, ModelArgument],
    tracking_uri: str | None,
    folder: Path,
) -> None:
    # Imported here, while the server loads its libraries: it takes a second or two.
    from mlflow import get_tracking_uri  # noqa: PLC0415 (see above)

    from modelops_operator.adapters.mlflow import ModelRegistryError  # noqa: PLC0415 (the same)
    from modelops_operator.cli import serving  # noqa: PLC0415 (the same)
    from modelops_operator.cli.failing import told  # noqa: PLC0415 (the same)

    async def lay_out(wish: serving.Wish) -> None:
        models = await serving.find(wish, _warn)
        found = await serving.lay_out(models, wish.tracking_uri, folder)
        serving.check_requirements(found, _warn)
        for role, each in models.items():
            click.echo(f"{role:<11}{each.name}/{each.version}")

    wish = serving.Wish(predictor, detectors, tracking_uri or get_tracking_uri())
    with told(ModelRegistryError):
        asyncio.run(lay_out(wish))


def _warn(sentence: str) -> None:
    click.echo(sentence, err=True)
