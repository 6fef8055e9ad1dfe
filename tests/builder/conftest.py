"""Real counterparts for the builder: a registry, and wheels made on the spot."""

import asyncio
import base64
import contextlib
import hashlib
import subprocess
import zipfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from modelops_operator.adapters.oci import Reference
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import ImageModel, ModelImageSpec
from modelops_operator.builder import images
from modelops_operator.builder.build import BuiltImage
from modelops_operator.builder.lock import LockedWheel, local_wheel

from tests.builder.cosign import Cosign, Pair
from tests.builder.releases import build, release, spec_of
from tests.registries.azure import ASSERTION, CLIENT, TENANT, AzureSite, azure_site
from tests.registries.servers import RunningRegistry, StartRegistry, wait_for
from tests.registries.tokens import Certificate

# bcrypt of "secret", as `htpasswd -B` writes it
USERS = "builder:$2y$05$o7pOJrLuEUQ11qB4JTmsSuY4zv1E.sOf7MOx4mUIWeyMMN.DfTzbS\n"
MakeWheel = Callable[..., LockedWheel]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let sockets be collected, in whichever test the garbage collector comes.

    httpx forgets those that it clears away while a request is cancelled. One that came under load
    has not been traced: it may be the same, or a leak of ours, which this would hide.
    """
    ignored = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(ignored)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def distribution(start_registry: StartRegistry) -> RunningRegistry:
    """Distribution 3, the successor of Debian's registry; without the referrers API, too."""
    from tests.apiserver import program

    return start_registry(program=program("distribution"))


@pytest.fixture(scope="session")
def referrers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    """go-containerregistry's registry, which has the referrers API."""
    from tests.apiserver import program
    from tests.mlflow_server import free_port

    folder = tmp_path_factory.mktemp("referrers")
    host = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program("referrers"), host], stdout=log, stderr=log)
    wait_for(host, process, folder / "log")
    yield RunningRegistry(host, folder)
    process.terminate()
    process.wait()


@pytest.fixture(scope="session", params=["registry", "distribution", "referrers"])
def each_registry(request: pytest.FixtureRequest) -> RunningRegistry:
    """Debian's registry 2.8, distribution 3 and go-containerregistry's, one after the other."""
    running: RunningRegistry = request.getfixturevalue(request.param)
    return running


@pytest.fixture(scope="session")
def guarded(
    start_registry: StartRegistry, tmp_path_factory: pytest.TempPathFactory
) -> RunningRegistry:
    """A registry that knows one user, `builder`, whose password is `secret`."""
    users = tmp_path_factory.mktemp("auth") / "users"
    users.write_text(USERS)
    return start_registry(f"auth: {{htpasswd: {{realm: test, path: {users}}}}}\n")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
async def azure(
    certificate: Certificate,
    start_registry: StartRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[AzureSite]:
    """A registry as Azure's, for which the environment has a workload identity."""
    async with azure_site(certificate, start_registry) as site:
        token = tmp_path / "token"
        token.write_text(ASSERTION)
        for name, value in {
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_FEDERATED_TOKEN_FILE": str(token),
            "AZURE_AUTHORITY_HOST": site.proxy.origin,
        }.items():
            monkeypatch.setenv(name, value)
        yield site


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
        requires: str = "",
        bare: bool = False,
    ) -> LockedWheel:
        info = f"{name}-{version}.dist-info"
        content = dict(files)
        if not bare:
            needs = f"Requires-Dist: {requires}\n" if requires else ""
            content[f"{info}/METADATA"] = f"Name: {name}\nVersion: {version}\n{needs}".encode()
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


# --- signatures --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair.make(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair.make(tmp_path_factory.mktemp("others"))


@pytest.fixture
def cosign(tmp_path: Path) -> Cosign:
    return Cosign(tmp_path)


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
        if folder.is_dir():
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


def lay_out(layer: Path, folder: Path) -> None:
    """Unpack a layer; Python's own reader would take half a minute for what the suite unpacks."""
    command = ["tar", "-xpf", str(layer), "-C", str(folder), "--keep-directory-symlink"]
    subprocess.run(command, check=True)


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
                await asyncio.to_thread(lay_out, layer, folder)
        layer.unlink()

    return pull


@pytest.fixture(scope="session")
def first(
    mlflow: RunningMlflow, configuration: OperatorConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelImageSpec, BuiltImage]:
    """A first release, built into an empty registry."""
    models = release(mlflow, tmp_path_factory.mktemp("models"), "one")
    spec = spec_of(models, configuration, "release-predictor")
    return spec, asyncio.run(build(configuration, spec))
