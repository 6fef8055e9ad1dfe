"""Real counterparts for the builder: a registry, and wheels made on the spot."""

import asyncio
import base64
import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from modelops_operator.adapters.oci import Reference, Registry
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import ImageModel, ModelImageSpec
from modelops_operator.builder import images
from modelops_operator.builder.build import BuiltImage
from modelops_operator.builder.lock import LockedWheel, local_wheel

from tests.builder.releases import build, release, spec_of

# bcrypt of "secret", as `htpasswd -B` writes it
USERS = "builder:$2y$05$o7pOJrLuEUQ11qB4JTmsSuY4zv1E.sOf7MOx4mUIWeyMMN.DfTzbS\n"
MakeWheel = Callable[..., LockedWheel]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True)
class RunningRegistry:
    host: str
    data: Path

    def connect(self, **settings: object) -> Registry:
        return Registry(self.host, insecure=True, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def registry_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's docker-registry: installed, in the cache, or fetched as a package and unpacked."""
    if found := shutil.which("docker-registry"):
        return Path(found)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    binary = home / "modelops" / "docker-registry" / "usr" / "bin" / "docker-registry"
    if not binary.exists():
        folder = tmp_path_factory.mktemp("deb")
        folder.chmod(0o777)
        command = ["apt-get", "download", "-qq", "docker-registry"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        (package,) = folder.glob("*.deb")
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)
        binary.parent.parent.parent.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder / "root", binary.parents[2], dirs_exist_ok=True)
    return binary


def _wait_for(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    name, port = host.split(":")
    for _ in range(4000):
        try:
            socket.create_connection((name, int(port)), timeout=1).close()
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(log.read_text()) from None
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nobody answers at {host}")


StartRegistry = Callable[..., RunningRegistry]


@pytest.fixture(scope="session")
def start_registry(
    registry_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartRegistry]:
    """Start registries; `extra` is appended to the configuration."""
    from tests.mlflow_server import free_port

    running: list[subprocess.Popen[bytes]] = []

    def start(extra: str = "") -> RunningRegistry:
        folder = tmp_path_factory.mktemp("registry")
        host = f"127.0.0.1:{free_port()}"
        config = folder / "config.yml"
        config.write_text(
            f"""version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}
http: {{addr: "{host}"}}
{extra}"""
        )
        log = (folder / "log").open("wb")
        with log:
            running.append(
                subprocess.Popen([registry_binary, "serve", config], stdout=log, stderr=log)
            )
        _wait_for(host, running[-1], folder / "log")
        return RunningRegistry(host, folder / "data")

    yield start
    for process in running:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def registry(start_registry: StartRegistry) -> RunningRegistry:
    return start_registry()


@pytest.fixture(scope="session")
def guarded(
    start_registry: StartRegistry, tmp_path_factory: pytest.TempPathFactory
) -> RunningRegistry:
    """A registry that knows one user, `builder`, whose password is `secret`."""
    users = tmp_path_factory.mktemp("auth") / "users"
    users.write_text(USERS)
    return start_registry(f"auth: {{htpasswd: {{realm: test, path: {users}}}}}\n")


@pytest.fixture(scope="session")
def base(registry: RunningRegistry) -> str:
    """The sandbox's base image with Python, so that what is built on it runs."""
    from sandbox import base_image

    return base_image.push(registry.host, insecure=True)


@pytest.fixture
def make_wheel(tmp_path: Path) -> MakeWheel:
    """Make a wheel of files; metadata and RECORD are added unless `bare`."""

    def make(
        files: Mapping[str, bytes],
        name: str = "toy",
        version: str = "1.0",
        *,
        modes: Mapping[str, int] | None = None,
        bare: bool = False,
    ) -> LockedWheel:
        info = f"{name}-{version}.dist-info"
        content = dict(files)
        if not bare:
            content[f"{info}/METADATA"] = f"Name: {name}\nVersion: {version}\n".encode()
            content[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\n"
            content[f"{info}/RECORD"] = "".join(
                f"{path},sha256={_record(data)},{len(data)}\n" for path, data in content.items()
            ).encode()
        path = tmp_path / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in content.items():
                entry = zipfile.ZipInfo(member)
                entry.external_attr = (modes or {}).get(member, 0o100644) << 16
                archive.writestr(entry, data)
        return local_wheel(path)

    return make


def _record(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


# --- MLflow ------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunningMlflow:
    """A real server, and a way to register folders in it."""

    uri: str
    database: Path

    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def register(self, name: str, files: Mapping[str, bytes], folder: Path) -> ImageModel:
        """Register files as a new version of a model, whatever they are; give the version."""
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        client = self.client()
        run = client.create_run("0").info.run_id
        if files:
            client.log_artifacts(run, str(folder), "model")
        with contextlib.suppress(MlflowException):
            client.create_registered_model(name)
        source = f"{client.get_run(run).info.artifact_uri}/model"
        version = client.create_model_version(name, source, run_id=run)
        return ImageModel(
            role=Role.PREDICTOR, name=name, version=version.version, run_id=run, source=source
        )


@pytest.fixture(scope="session")
def mlflow(tracking_uri: str, mlflow_folder: Path) -> RunningMlflow:
    return RunningMlflow(tracking_uri, mlflow_folder / "mlflow.db")


# --- builders ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace's own runtime, as the builder's image carries it."""
    folder = tmp_path_factory.mktemp("bundle")
    assert images.main(["--bundle", str(folder)]) == 0
    return folder


Configure = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def configure(
    mlflow: RunningMlflow, registry: RunningRegistry, base: str, bundle: Path
) -> Configure:
    def make(**changes: Any) -> dict[str, Any]:
        own = {"host": registry.host, "insecure": True}
        return {
            "mlflow": {"trackingUri": mlflow.uri},
            "registry": own | changes.get("registry", {}),
            "builder": {"bases": {"3.11": base}, "runtimeBundle": str(bundle)}
            | changes.get("builder", {}),
        }

    return make


@pytest.fixture(scope="session")
def configuration(configure: Configure) -> OperatorConfig:
    return OperatorConfig.model_validate(configure())


Unpack = Callable[[str, Path], Coroutine[Any, Any, None]]


@pytest.fixture(scope="session")
def unpack(registry: RunningRegistry) -> Unpack:
    """Pull an image and lay its layers over each other in a folder."""

    async def pull(reference: str, folder: Path) -> None:
        parsed = Reference.parse(reference)
        layer = folder / "layer"
        async with registry.connect() as client:
            manifest = await client.manifest(parsed.repository, parsed.version)
            assert manifest is not None
            for descriptor in manifest.parsed()["layers"]:
                await client.download(parsed.repository, descriptor["digest"], layer)
                with tarfile.open(layer) as archive:
                    archive.extractall(folder, filter="fully_trusted")
        layer.unlink()

    return pull


@pytest.fixture(scope="session")
def first(
    mlflow: RunningMlflow, configuration: OperatorConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelImageSpec, BuiltImage]:
    """A first release, built into an empty registry."""
    models = release(mlflow, tmp_path_factory.mktemp("models"), "one")
    spec = spec_of(models, configuration, "employment")
    return spec, asyncio.run(build(configuration, spec))
