"""Builds the images of the operator and of the builder itself: `python -m` this module.

The same parts that build images of models do it, from the workspace's own lock: there is one way to
build everything. It runs on a developer's machine, needs no container engine, and gives the same
digests for the same sources. Environments are made in a folder, where the next run finds them.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uv import find_uv_bin

from modelops_operator.adapters.image_folder import ImageFolder
from modelops_operator.adapters.registry_errors import RegistryError
from modelops_operator.api.config import BuilderConfig, RegistryConfig
from modelops_operator.builder.bundle import FAST, LOCK_FILE, SERVE, write_bundle
from modelops_operator.builder.connections import Connections, connected
from modelops_operator.builder.environment import Environments, Job
from modelops_operator.builder.failures import BuildError, first_failure
from modelops_operator.builder.image import Repository, copy_layer, publish
from modelops_operator.builder.layers import Entry, Layer, write_layer
from modelops_operator.builder.lock import Lock, read_lock
from modelops_operator.builder.target import Target
from modelops_operator.builder.transfer import Transfer
from modelops_operator.builder.wheels import PREFIX, WheelStore

WORKSPACE: Final = Path(__file__).resolve().parents[3]
BUNDLE_FOLDER: Final = BuilderConfig().runtime_bundle
_EPOCH: Final = "315532800"
"""1980, the oldest time that a zip archive can hold: our wheels do not depend on the day."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What the workspace's packages come to."""

    version: str
    operator: Path
    """Wheel of modelops-operator."""
    runtime: Path
    """Wheel of modelops-runtime."""
    operator_lock: bytes
    builder_lock: bytes
    runtime_lock: bytes

    def lock(self, content: bytes, target: Target) -> Lock:
        """Complete a lock with our own wheels."""
        lock = read_lock(content, target, origin="the workspace")
        return lock.with_local([self.operator, self.runtime])


def cache_folder() -> Path:
    """Give the folder for what later builds on this machine use again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "modelops")


def collect(workspace: Path, folder: Path) -> Sources:
    """Build the workspace's wheels into `folder` and read its locks.

    Raises BuildError with uv's own words when one of them cannot be made.
    """
    for package in ("modelops-runtime", "modelops-operator"):
        _uv(workspace, "build", "--wheel", "--package", package, "--out-dir", str(folder))
    (operator,) = folder.glob("modelops_operator-*.whl")
    (runtime,) = folder.glob("modelops_runtime-*.whl")
    return Sources(
        version=runtime.name.split("-")[1],
        operator=operator,
        runtime=runtime,
        operator_lock=_export(workspace, "modelops-operator"),
        builder_lock=_export(workspace, "modelops-operator", "--extra", "builder"),
        runtime_lock=_export(workspace, "modelops-runtime", "--extra", SERVE, "--extra", FAST),
    )


def write_workspace_bundle(workspace: Path, folder: Path) -> Path:
    """Make the runtime bundle of a checkout; give its folder. Raises BuildError."""
    with tempfile.TemporaryDirectory(prefix="modelops-wheels-") as wheels:
        sources = collect(workspace, Path(wheels))
        return write_bundle(folder, sources.version, sources.runtime, sources.runtime_lock)


def _export(workspace: Path, package: str, *extra: str) -> bytes:
    return _uv(
        workspace,
        *("export", "--package", package, *extra, "--format", "pylock.toml"),
        *("--frozen", "--no-dev", "--no-emit-workspace", "--no-header", "--no-annotate"),
    )


def _uv(workspace: Path, *arguments: str) -> bytes:
    result = subprocess.run(  # noqa: S603 (uv, with arguments of ours)
        [find_uv_bin(), *arguments, "--quiet"],
        cwd=workspace,
        env=os.environ | {"SOURCE_DATE_EPOCH": _EPOCH},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if result.returncode:
        raise BuildError.of_program(f"uv {arguments[0]}", result.stderr.decode(errors="replace"))
    return result.stdout


# --- images --------------------------------------------------------------------------------


@dataclass(slots=True)
class Workshop:
    """Builds our images one after the other, telling how far it is."""

    connections: Connections
    kept: Repository
    """Where environments are made, on this machine."""
    environments: Environments
    wheels: WheelStore
    base: str
    target: Target
    folder: Path

    async def build(self, name: str, lock: Lock, program: str, extra: Iterable[Entry] = ()) -> str:
        """Build and push one image; give its reference by digest."""
        begun = time.monotonic()
        transfer = Transfer(lambda _step, _pushed: None)
        config = self.connections.config
        registry = await self.connections.registry(config.host)
        repository = Repository(registry, _under(config, name))
        image = await self.environments.ensure(
            self.kept.name,
            base=await self.connections.base(self.base),
            lock=lock,
            target=self.target,
            job=Job(self.folder, self.wheels, Transfer(lambda _step, _pushed: None)),
        )
        shared = Repository(registry, _under(config, "cache"))
        async with asyncio.TaskGroup() as tasks:
            for layer in image.layers:
                tasks.create_task(self._bring(layer, shared, repository, transfer))
        layers = []
        if files := list(extra):
            layer, blob = write_layer(files, self.folder / name, content="serving runtime")
            transfer.count(layer.size, sent=await registry.ensure(repository.name, blob))
            layers.append(layer)
        image = image.extended(
            layers,
            environment={},
            entrypoint=[f"/{PREFIX}/bin/{program}"],
            labels={"org.opencontainers.image.title": name},
        )
        digest = await publish(repository, image, tag=lock.digest[7:19], annotations={})
        size = sum(layer.size for layer in image.layers)
        _say(
            f"  {name}: {len(image.layers)} layers of {size / 1e6:.1f} MB, "
            f"{transfer.pushed / 1e6:.1f} MB sent, {time.monotonic() - begun:.1f} s"
        )
        return f"{config.host}/{repository.name}@{digest}"

    async def _bring(
        self, layer: Layer, shared: Repository, repository: Repository, transfer: Transfer
    ) -> None:
        """Send a layer once, to where all of our images have it mounted from."""
        sent = await copy_layer(layer, self.kept, shared, self.folder)
        transfer.count(layer.size, sent=sent)
        await copy_layer(layer, shared, repository, self.folder)


def bundle_entries(folder: Path) -> Iterator[Entry]:
    """Give the files of a bundle folder, for their place in the builder's image."""
    place = str(BUNDLE_FOLDER).lstrip("/")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield Entry.from_file(f"{place}/{path.relative_to(folder)}", path)


async def build_images(
    sources: Sources, config: RegistryConfig, *, base: str, target: Target, cache: Path
) -> dict[str, str]:
    """Build and push both images; give their references by name.

    `cache` is the folder for wheels and environments that later runs use again.
    """
    with tempfile.TemporaryDirectory(prefix="modelops-images-") as name:
        folder = Path(name)
        bundle = folder / "runtime"
        write_bundle(bundle, sources.version, sources.runtime, sources.runtime_lock)
        ca_bundle = os.environ.get("SSL_CERT_FILE")
        async with connected(config, Path(ca_bundle) if ca_bundle else None) as connections:
            kept = Repository(ImageFolder(cache / "images"), "environments")
            wheels = WheelStore(cache / "wheels", await connections.index())
            workshop = Workshop(connections, kept, Environments(kept), wheels, base, target, folder)
            operator_lock = sources.lock(sources.operator_lock, target)
            builder_lock = sources.lock(sources.builder_lock, target)
            return {
                "operator": await workshop.build("operator", operator_lock, "modelops-operator"),
                "builder": await workshop.build(
                    "builder", builder_lock, "modelops-builder", bundle_entries(bundle)
                ),
            }


def _under(config: RegistryConfig, name: str) -> str:
    return f"{config.prefix}/{name}" if config.prefix else name


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the command line; 0 when all went well."""
    options = _parser().parse_args(None if arguments is None else list(arguments))
    try:
        with tempfile.TemporaryDirectory(prefix="modelops-wheels-") as folder:
            begun = time.monotonic()
            sources = collect(options.workspace, Path(folder))
            _say(f"  wheels and locks of the workspace: {time.monotonic() - begun:.1f} s")
            if options.bundle:
                place = write_bundle(
                    options.bundle, sources.version, sources.runtime, sources.runtime_lock
                )
                _say(f"  runtime bundle: {place / LOCK_FILE} and its wheel")
            if options.registry:
                _build(sources, options)
    except (BuildError, RegistryError, ExceptionGroup) as error:
        _say(f"error: {first_failure(error).failure.message}")
        return 1
    return 0


def _build(sources: Sources, options: argparse.Namespace) -> None:
    config = RegistryConfig(
        host=options.registry,
        prefix=options.prefix,
        insecure=options.insecure,
        docker_config=options.docker_config,
    )
    target = Target(options.python, options.platform)
    (options.cache / "wheels").mkdir(parents=True, exist_ok=True)
    building = build_images(sources, config, base=options.base, target=target, cache=options.cache)
    references = asyncio.run(building)
    text = json.dumps(references, indent=2)
    if options.output:
        options.output.write_text(f"{text}\n", encoding="utf-8")
    _say(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m modelops_operator.builder.images",
        description="Build the images of the operator and the builder and push them, "
        "or write the runtime bundle for a builder outside of a cluster.",
    )
    parser.add_argument("--registry", metavar="HOST", help="registry to push to, with its port")
    parser.add_argument("--prefix", default="modelops", help="path that repositories are under")
    parser.add_argument("--base", metavar="REF", default="", help="base image, by digest")
    parser.add_argument("--insecure", action="store_true", help="speak http with the registry")
    parser.add_argument("--docker-config", type=Path, help="config.json with credentials")
    parser.add_argument("--python", default="3.11", help="minor version in the base image")
    parser.add_argument("--platform", default="linux/amd64")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the references as JSON")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="write the runtime bundle there")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=cache_folder(),
        help="folder that wheels and environments are kept in",
    )
    parser.add_argument("--workspace", type=Path, default=WORKSPACE, help=argparse.SUPPRESS)
    return parser


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
