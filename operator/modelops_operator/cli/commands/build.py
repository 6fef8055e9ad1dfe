"""`modelops build`."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from modelops_runtime.bento import ServingRuntime
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from modelops_operator.adapters.mlflow import ModelRegistryError
from modelops_operator.api.config import ConfigError, OperatorConfig, load
from modelops_operator.builder.images import cache_folder
from modelops_operator.cli import building
from modelops_operator.cli.failing import told
from modelops_operator.cli.naming import ModelArgument
from modelops_operator.cli.options import AUTHORITIES, CREDENTIALS, INSECURE
from modelops_operator.cli.sizes import megabytes, show_layers

_stderr: Final = Console(stderr=True)


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="[ROLE=]NAME@ALIAS",
    help="A registered model, by alias or as NAME/VERSION; once for each. What it is for "
    "(predictor, drift, outlier) is read from the model unless said.",
)
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", required=True, metavar="URI")
@click.option("--push", metavar="REF", default="", help="HOST/REPOSITORY[:TAG] to push it to.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write it there as an OCI image layout instead.",
)
@click.option(
    "--base",
    envvar="BASE_IMAGE",
    metavar="REF",
    default="",
    help="Image with Python in /usr/bin; by default the configuration's.",
)
@click.option("--python", help="Its minor version; by default 3.11.")
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    help="By default linux/amd64; several make one list of images.",
)
@INSECURE
@CREDENTIALS
@click.option(
    "--index-url",
    "index_urls",
    multiple=True,
    envvar="UV_DEFAULT_INDEX",
    metavar="URL",
    help="Package index; several, the first one first. By default PyPI.",
)
@AUTHORITIES
@click.option(
    "--runtime-bundle",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with the serving runtime; by default of the builder's image, or this checkout.",
)
@click.option(
    "--runtime",
    type=click.Choice([str(each) for each in ServingRuntime]),
    default=str(ServingRuntime.AUTO),
    show_default=True,
    help="How the predictor is served: Fast from its compiled form, Pyfunc through MLflow with all "
    "that it requires, Auto as Fast where there is a compiled form.",
)
@click.option("--attest", is_flag=True, help="Attach a bill of materials and the provenance.")
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Private key (ECDSA on P-256, plain PEM): sign the image, its bill of materials and its "
    "provenance, as cosign does.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The operator's configuration, for what no option says.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary for programs.")
def build(**options: Any) -> None:
    """Build one image of registered models, without a daemon and without a cluster."""
    push, output = options["push"], options["output"]
    if bool(push) == bool(output):
        raise click.UsageError("say either --push REF or --output DIR")
    if options["key"] and output:
        raise click.UsageError("signatures are kept in a registry: --key goes with --push REF")
    try:
        arguments = [ModelArgument.parse(text) for text in options["models"]]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--model") from error
    with told(ConfigError, ModelRegistryError):
        outcome = asyncio.run(_build(options, arguments))
    if options["as_json"]:
        built = outcome.built
        summary = {
            "reference": outcome.reference,
            "digest": built.digest,
            "lock": built.lock,
            "form": built.form,
            "layers": [{"content": content, "size": size} for content, size in outcome.layers],
            "pushed": built.pushed,
            "reused": built.reused,
            "seconds": round(outcome.seconds, 2),
        }
        click.echo(json.dumps(summary, indent=2))
        return
    show_layers(outcome.layers)
    click.echo(
        f"{megabytes(sum(size for _, size in outcome.layers))} in {len(outcome.layers)} layers: "
        f"{megabytes(outcome.built.pushed)} new, {megabytes(outcome.built.reused)} reused; "
        f"{outcome.seconds:.1f} s"
    )
    click.echo(f"serves {outcome.built.form}\n{outcome.reference}\n{outcome.built.digest}")


async def _build(options: dict[str, Any], arguments: Sequence[ModelArgument]) -> building.Outcome:
    place, tag = _parts(options["push"])
    cache = cache_folder()
    config = _config(options, place)
    bundle = building.runtime_bundle(config.builder.runtime_bundle, cache / "runtime")
    base = await building.by_digest(config, _base(options, config))
    builder = config.builder.model_copy(
        update={"bases": {config.builder.python: base}, "runtime_bundle": bundle}
    )
    order = building.Order(
        config=config.model_copy(update={"builder": builder}),
        models=await building.resolve(arguments, config.mlflow.tracking_uri),
        runtime=ServingRuntime(options["runtime"]),
        push=place,
        tag=tag,
        output=options["output"] or Path(),
        cache=cache / "images",
    )
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_stderr, transient=True) as progress:
        task = progress.add_task("Starting", total=None)

        def report(step: str, pushed: int) -> None:
            progress.update(task, description=step, completed=pushed)

        return await building.build(order, report)


def _parts(push: str) -> tuple[str, str]:
    """Take HOST/REPOSITORY[:TAG] apart: the place and the tag."""
    head, slash, last = push.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", tag


def _config(options: dict[str, Any], place: str) -> OperatorConfig:
    """Complete the configuration by the options. Raises ConfigError, ValidationError."""
    file = options["config_file"]
    known = load(file).model_dump(mode="json", by_alias=True) if file else {}
    host, _, repository = place.partition("/")
    if not host and "registry" not in known:
        # Nothing is pushed: the registry that is spoken to is the base image's.
        host = options["base"].partition("/")[0] or building.FOLDER_HOST
    registry = {
        "host": host,
        "prefix": repository.rpartition("/")[0],
        "insecure": options["insecure"],
        "dockerConfig": options["docker_config"],
    }
    builder = {
        "python": options["python"],
        "platforms": options["platforms"],
        "indexUrls": options["index_urls"],
        "caBundle": options["ca_bundle"],
        "attest": options["attest"],
        "signing": options["key"] and {"key": options["key"]},
        "runtimeBundle": options["runtime_bundle"],
    }
    return OperatorConfig.model_validate(
        {
            **known,
            "mlflow": {**known.get("mlflow", {}), "trackingUri": options["tracking_uri"]},
            "registry": {**known.get("registry", {}), **_said(registry)},
            "builder": {**known.get("builder", {}), **_said(builder)},
        }
    )


def _said(options: dict[str, Any]) -> dict[str, Any]:
    """Leave out what nobody said."""
    return {name: value for name, value in options.items() if value}


def _base(options: dict[str, Any], config: OperatorConfig) -> str:
    base: str = options["base"] or config.builder.bases.get(config.builder.python, "")
    if not base:
        raise click.UsageError(
            "name the base image with --base REF, or a --config that has one in builder.bases"
        )
    return base
