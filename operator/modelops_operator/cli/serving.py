"""Serves registered models at a desk, by the service that answers in the pods."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
from modelops_runtime import bento
from packaging.requirements import Requirement

from modelops_operator.adapters.mlflow import MlflowRegistry, ModelRegistryError
from modelops_operator.api.facts import ModelVersion, Role
from modelops_operator.api.resources import ImageModel
from modelops_operator.builder.failures import BuildError
from modelops_operator.builder.models import FetchedModel, fetch
from modelops_operator.cli.building import ModelArgument, version_of

HOST: Final = "127.0.0.1"
DETECTORS: Final = (Role.DRIFT, Role.OUTLIER)
_AS_IN_IMAGES: Final = (
    "BENTOML_DO_NOT_TRACK",
    "MALLOC_ARENA_MAX",
    "OMP_NUM_THREADS",
    "PYTHONUNBUFFERED",
)
"""Variables that images set and that hold at a desk as well."""
_STOP: Final = 10.0
"""Seconds that the server has to answer what it was asked and to write its telemetry."""
_POLL: Final = 0.02

Tell = Callable[[str], object]


class ServeError(Exception):
    """The models cannot be served here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which models are to be served."""

    predictor: ModelArgument
    detectors: Mapping[Role, ModelArgument]
    """Those that were named; the others are looked for."""
    tracking_uri: str


async def find(wish: Wish, tell: Tell) -> Mapping[Role, ModelVersion]:
    """Find the versions; detectors that were not named are those of the predictor's training.

    They are looked for under the names that training gives them, `<predictor>_drift` and
    `<predictor>_outlier`. Raises ModelRegistryError, BuildError.
    """
    registry = MlflowRegistry(wish.tracking_uri)
    try:
        predictor = await version_of(registry, wish.predictor)
        found = {Role.PREDICTOR: predictor}
        for role in DETECTORS:
            named = wish.detectors.get(role)
            detector = (
                await version_of(registry, named)
                if named
                else await _sibling(registry, predictor, role, tell)
            )
            if detector is not None:
                found[role] = detector
    finally:
        registry.close()
    return found


async def _sibling(
    registry: MlflowRegistry, predictor: ModelVersion, role: Role, tell: Tell
) -> ModelVersion | None:
    if predictor.train_id is None:
        return None
    name = f"{predictor.name}_{role}"
    try:
        number = await registry.of_training(name, predictor.train_id)
    except ModelRegistryError as error:
        tell(f"no {role} detector: {error.failure.message}. Name it with --{role}")
        return None
    return await registry.version(name, number) if number else None


async def lay_out(
    models: Mapping[Role, ModelVersion], tracking_uri: str, folder: Path
) -> FetchedModel:
    """Write the Bento of these models into a folder; give the predictor.

    Raises BuildError when a model cannot be had or is not what its flavor says.
    """
    names = {str(role): f"{each.name}/{each.version}" for role, each in models.items()}
    predictor = models[Role.PREDICTOR]
    files = bento.skeleton(
        name=predictor.name,
        version=predictor.version,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        models=names,
    )
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    async with asyncio.TaskGroup() as tasks:
        fetching = {
            role: tasks.create_task(_fetch(role, model, tracking_uri, folder))
            for role, model in models.items()
        }
    return fetching[Role.PREDICTOR].result()


async def _fetch(role: Role, model: ModelVersion, tracking_uri: str, folder: Path) -> FetchedModel:
    place = folder / bento.MODELS / role
    place.mkdir(parents=True)
    wanted = ImageModel(
        role=role,
        name=model.name,
        version=model.version,
        run_id=model.run_id,
        source=model.source or "unknown",
    )
    return await fetch(wanted, tracking_uri, place)


def check_requirements(predictor: FetchedModel, tell: Tell) -> None:
    """See whether this environment has what a model without our flavor needs.

    Raises ServeError that names what is missing and how to get it.
    """
    if predictor.fast:
        return
    tell(f"{predictor.title} has no fast form: it runs by MLflow, and so does the code in it")
    try:
        missing = list(_missing(predictor.requirements().wanted))
    except BuildError as error:
        tell(f"no image can be built of it: {error}")
        return
    if missing:
        options = " ".join(f"--with '{each}'" for each in missing)
        raise ServeError(
            f"{predictor.title} needs {', '.join(missing)}, which this Python does not have: "
            f"install it, or run `uv run {options} modelops serve ...`"
        )


def _missing(wanted: Iterable[str]) -> Iterator[str]:
    for line in wanted:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version(requirement.name)
        except PackageNotFoundError:
            yield line


class Server:
    """The process that serves; it loads its libraries while the models are fetched."""

    def __init__(self, listening: socket.socket, scratch: Path) -> None:
        metrics = scratch / "metrics"
        metrics.mkdir()
        self.url = f"http://{HOST}:{listening.getsockname()[1]}/"
        image = bento.environment()
        own = {
            "BENTOML_HOME": str(scratch / "home"),
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
            "TMPDIR": str(scratch),
        }
        reading, writing = os.pipe()
        self._process = subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-m", "modelops_runtime.alone", str(listening.fileno())],
            stdin=reading,
            env=os.environ | {name: image[name] for name in _AS_IN_IMAGES} | own,
            pass_fds=[listening.fileno()],
            # Ctrl-C is ours to hear: it is told to end as in a pod.
            start_new_session=True,
        )
        os.close(reading)
        self._input = os.fdopen(writing, "w")

    def serve(self, folder: Path) -> None:
        """Have it serve this Bento; return once it is ready. Raises ServeError when it ends."""
        with suppress(BrokenPipeError):
            self._input.write(f"{folder}\n")
            self._input.flush()
        while not self._is_ready():
            if self._process.poll() is not None:
                raise ServeError("the server has ended, see above")
            time.sleep(_POLL)

    def wait(self) -> int:
        """Wait until it ends by itself; give its exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """End it, once all that it was asked is answered."""
        self._process.terminate()
        try:
            self._process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(BrokenPipeError):
            self._input.close()

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}readyz", timeout=2).is_success
        except httpx.TransportError:
            return False


@contextmanager
def started(port: int) -> Iterator[tuple[Server, Path]]:
    """Start a server's process, and end it at the end; gives a folder for the Bento, too.

    Raises ServeError when the port cannot be had.
    """
    with (
        _listening(port) as listening,
        TemporaryDirectory(prefix="modelops-serve-", ignore_cleanup_errors=True) as scratch,
    ):
        server = Server(listening, Path(scratch))
        try:
            yield server, Path(scratch, "bento")
        finally:
            server.stop()


def _listening(port: int) -> socket.socket:
    taken = socket.socket()
    # Connections of the server before may linger.
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((HOST, port))
    except OSError as error:
        taken.close()
        raise ServeError(
            f"port {port} cannot be had ({error.strerror}): choose another one with --port"
        ) from error
    return taken
