"""`modelops image`."""

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import click

from modelops_operator.adapters.image_signatures import trusted_keys
from modelops_operator.adapters.oci import Reference
from modelops_operator.adapters.registry_upkeep import Locks, Upkeep
from modelops_operator.api.config import RegistryAuth, RegistryConfig
from modelops_operator.builder import garbage
from modelops_operator.builder.connections import Connections, connected
from modelops_operator.cli.failing import told
from modelops_operator.cli.inspecting import Description, InspectError, describe
from modelops_operator.cli.options import AUTHORITIES, CREDENTIALS, INSECURE
from modelops_operator.cli.pruning import UsersUnknownError, usage
from modelops_operator.cli.sizes import megabytes, show_layers


@click.group()
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
    with told(InspectError):
        description = asyncio.run(_inspect(parsed, options))
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
    with told(UsersUnknownError):
        asyncio.run(_prune(options))


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
            click.echo(f"{one.repository}:{one.tags[0]}  {what}  {megabytes(one.size)}{stays}")
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
    show_layers(description.layers)
    if description.libraries:
        click.echo(f"{len(description.libraries)} libraries: {', '.join(description.libraries)}")
