"""The command `modelops`."""

import asyncio
import json
import signal
import sys
import webbrowser
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from modelops_runtime import bento
from modelops_runtime.bento import ServingRuntime
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from modelops_operator.adapters.image_signatures import trusted_keys
from modelops_operator.adapters.mlflow import ModelRegistryError
from modelops_operator.adapters.oci import Reference
from modelops_operator.adapters.registry_errors import RegistryError
from modelops_operator.adapters.registry_upkeep import Locks, Upkeep
from modelops_operator.api.config import (
    ConfigError,
    OperatorConfig,
    ProcessConfig,
    RegistryAuth,
    RegistryConfig,
    load,
)
from modelops_operator.api.resources import validation_message
from modelops_operator.builder import garbage
from modelops_operator.builder.connections import Connections, connected
from modelops_operator.builder.failures import BuildError, first_failure
from modelops_operator.builder.images import cache_folder
from modelops_operator.cli import building, report_page, report_text, reporting, serving
from modelops_operator.cli.inspecting import Description, InspectError, describe
from modelops_operator.cli.pruning import UsersUnknownError, usage
from modelops_operator.cli.reporting import ReportError
from modelops_operator.cli.serving import ServeError
from modelops_operator.cli.telling import UntoldError, revisions, table

T = TypeVar("T")
DOCKER_CONFIG: Final = Path.home() / ".docker" / "config.json"
_MEGABYTE: Final = 1e6
_WIDTH: Final = 90
_stderr: Final = Console(stderr=True)

INSECURE: Final = click.option(
    "--insecure", is_flag=True, help="Speak plain http with the registry."
)
CREDENTIALS: Final = click.option(
    "--docker-config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=DOCKER_CONFIG if DOCKER_CONFIG.is_file() else None,
    help="config.json with credentials; by default that of `docker login`.",
)
AUTHORITIES: Final = click.option(
    "--ca-bundle",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="SSL_CERT_FILE",
    help="Certificates (PEM) to trust instead of the system's.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Serve registered models here, build and look at their images, as the operator does."""


@main.command()
@click.argument("name")
@click.option("-n", "--namespace", help="By default that of the kubeconfig's context.")
@click.option("--context", help="Context of the kubeconfig; by default the current one.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def history(name: str, namespace: str | None, context: str | None, output: str) -> None:
    """List the last revisions of a ModelDeployment: who asked, when, and what became of them."""
    entries = _run(revisions(name, namespace, context))
    click.echo(json.dumps(entries, indent=2) if output == "json" else table(entries))


@main.command()
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
        arguments = [building.ModelArgument.parse(text) for text in options["models"]]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--model") from error
    outcome = _run(_build(options, arguments))
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
    _show_layers(outcome.layers)
    click.echo(
        f"{_size(sum(size for _, size in outcome.layers))} in {len(outcome.layers)} layers: "
        f"{_size(outcome.built.pushed)} new, {_size(outcome.built.reused)} reused; "
        f"{outcome.seconds:.1f} s"
    )
    click.echo(f"serves {outcome.built.form}\n{outcome.reference}\n{outcome.built.digest}")


async def _build(
    options: dict[str, Any], arguments: Sequence[building.ModelArgument]
) -> building.Outcome:
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


@main.command()
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
    named = {role: options[role] for role in serving.DETECTORS if options[role]}
    try:
        predictor = building.ModelArgument.parse(model)
        detectors = {role: building.ModelArgument.parse(text) for role, text in named.items()}
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with suppress(KeyboardInterrupt), _told():
        with serving.started(options["port"]) as (server, folder):
            wish = serving.Wish(predictor, detectors, options["tracking_uri"] or _mlflows_own())
            asyncio.run(_lay_out(wish, folder))
            server.serve(folder)
            click.echo(f"{server.url} (Ctrl-C ends it)")
            if sys.stdout.isatty() and not options["no_open"]:
                webbrowser.open(server.url)
            code = server.wait()
        raise click.ClickException(f"the server has ended by itself ({code}), see above")


async def _lay_out(wish: serving.Wish, folder: Path) -> None:
    models = await serving.find(wish, _warn)
    predictor = await serving.lay_out(models, wish.tracking_uri, folder)
    serving.check_requirements(predictor, _warn)
    for role, found in models.items():
        click.echo(f"{role:<11}{found.name}/{found.version}")


@main.command()
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
    found = _run(reporting.gather(reporting.Wish(**options)))
    if text or output == "-":
        report_text.show(found, Console())
        return
    try:
        Path(output).write_text(report_page.page(found), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from error
    click.echo(output)


def _mlflows_own() -> str:
    from mlflow import get_tracking_uri  # noqa: PLC0415 (it takes a second)

    return str(get_tracking_uri())


def _warn(sentence: str) -> None:
    click.echo(sentence, err=True)


@main.group()
def image() -> None:
    """Look at images."""


@image.command()
@click.argument("reference")
@INSECURE
@CREDENTIALS
@AUTHORITIES
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Public keys (PEM): fail unless one of them has signed the image.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def inspect(reference: str, **options: Any) -> None:
    """Print the models, libraries and provenance of an image in a registry."""
    try:
        parsed = Reference.parse(reference)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="REFERENCE") from error
    description = _run(_inspect(parsed, options))
    if options["as_json"]:
        click.echo(description.as_json())
    else:
        _show(description)


async def _inspect(reference: Reference, options: dict[str, Any]) -> Description:
    keys = trusted_keys(options["key"]) if options["key"] else ()
    async with _connected(reference.host, options) as connections:
        registry = await connections.registry(reference.host)
        return await describe(registry, reference, keys)


@image.command()
@click.option("--registry", "host", required=True, metavar="HOST")
@click.option(
    "--prefix", default="modelops", show_default=True, help="Repositories under this path."
)
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="How many of the newest versions of each model stay, used or not.",
)
@click.option(
    "--context",
    "contexts",
    multiple=True,
    help="Context of a cluster that uses the registry, once for each: name all of them. By "
    "default the current one.",
)
@click.option(
    "--auth",
    type=click.Choice([str(way) for way in RegistryAuth]),
    default=str(RegistryAuth.AUTO),
    show_default=True,
    help="How to sign in to the registry. ACR: as Azure's tools are, or the pod's workload "
    "identity is, which shows what is locked there.",
)
@click.option("--lock", is_flag=True, help="Have Azure's registry refuse to delete what is in use.")
@click.option("--unlock", is_flag=True, help="Delete what is locked against deletion, too.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@INSECURE
@CREDENTIALS
@AUTHORITIES
def prune(**options: Any) -> None:
    """Delete images that no cluster uses and that are not a model's last versions."""
    _run(_prune(options))


async def _prune(options: dict[str, Any]) -> None:
    async with _connected(options["host"], options) as connections:
        registry = await connections.upkeep(options["host"])
        # First what there is, then who uses it: an image that comes meanwhile is not in the list.
        stored = await garbage.survey(registry, options["prefix"])
        used = await usage(options["contexts"] or (None,))
        if used.building:
            raise UsersUnknownError(
                f"ModelImage {used.building[0]} is being built, and what it needs cannot be told "
                "from what nobody needs: run this again when it is done"
            )
        unneeded = garbage.unneeded(stored, used.digests, options["keep"])
        spared = [one for one in unneeded if one.locked and not options["unlock"]]
        # What a locked image is made of stays with it.
        kept = used.digests | {one.digest for one in spared}
        doomed = [
            one for one in garbage.unneeded(stored, kept, options["keep"]) if one not in spared
        ]
        for one in (*doomed, *spared):
            what = f"{one.model}/{one.version}" if one.is_image else "kept for builds"
            stays = "  stays: it is locked" if one in spared else ""
            click.echo(f"{one.repository}:{one.tags[0]}  {what}  {_size(one.size)}{stays}")
        images = sum(one.is_image for one in doomed)
        click.echo(f"{images} images and {len(doomed) - images} remembered layers may go")
        if options["dry_run"]:
            return
        if options["lock"]:
            in_use = [one for one in stored if one.digest in used.digests and not one.locked]
            await garbage.lock(_locks(registry), in_use)
            click.echo(f"{len(in_use)} more images in use are locked")
        if not doomed:
            return
        if not options["yes"]:
            click.confirm("Delete them?", abort=True)
        if options["unlock"]:
            await garbage.unlock(_locks(registry), [one for one in doomed if one.locked])
        refused = await garbage.delete_all(registry, doomed)
    for error in refused.values():
        click.echo(f"not deleted: {error.failure.message}", err=True)
    click.echo(f"{len(doomed) - len(refused)} deleted")
    if refused:
        raise click.ClickException(f"{len(refused)} could not be deleted, see above")


def _locks(registry: Upkeep) -> Locks:
    if registry.locks is None:
        raise click.UsageError(
            "only Azure's registries have locks, for those who sign in to Azure: --auth ACR"
        )
    return registry.locks


def _connected(host: str, options: dict[str, Any]) -> AbstractAsyncContextManager[Connections]:
    """Open connections to the registry that the options tell of."""
    told = {
        "host": host,
        "insecure": options["insecure"],
        "auth": options.get("auth", RegistryAuth.AUTO),
        "dockerConfig": options["docker_config"],
    }
    return connected(RegistryConfig.model_validate(told), options["ca_bundle"])


def _show(description: Description) -> None:
    facts = {
        "image": description.reference,
        "digest": description.digest,
        **{
            role: f"{model}  {description.sources.get(model, '')}".rstrip()
            for role, model in description.models.items()
        },
        "run": description.run,
        "runtime": f"{description.runtime} ({description.profile})",
        "lock": description.lock,
        "base": description.base,
        "builder": description.builder or "not attested",
        "signed by": description.signed_by or "not verified: name the public key with --key",
    }
    for name, value in facts.items():
        click.echo(f"{name:<11}{value}")
    _show_layers(description.layers)
    if description.libraries:
        click.echo(f"{len(description.libraries)} libraries: {', '.join(description.libraries)}")


def _show_layers(layers: Sequence[tuple[str, int]]) -> None:
    for content, size in layers:
        short = content if len(content) <= _WIDTH else f"{content[: _WIDTH - 1]}…"
        click.echo(f"{_size(size):>10}  {short}")


def _size(count: int) -> str:
    return f"{count / _MEGABYTE:.1f} MB"


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run it; what goes wrong is told in a sentence."""
    with _told():
        return asyncio.run(work)


@contextmanager
def _told() -> Iterator[None]:
    """Tell in a sentence what goes wrong."""
    try:
        yield
    except (
        *(ConfigError, InspectError, ModelRegistryError, ReportError, ServeError),
        *(UntoldError, UsersUnknownError),
    ) as error:
        raise click.ClickException(str(error)) from error
    except ValidationError as error:
        raise click.ClickException(validation_message(error)) from error
    except (BuildError, RegistryError, ExceptionGroup) as error:
        raise click.ClickException(first_failure(error).failure.message) from error


if __name__ == "__main__":
    main()
