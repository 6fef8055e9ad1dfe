"""Whole builds: a real MLflow server, a real package index, a real registry."""

import asyncio
import functools
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from modelops_operator.adapters.oci import Reference, Registry
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import ModelImageSpec
from modelops_operator.builder.attestations import CYCLONEDX, IN_TOTO, LEFT_OUT
from modelops_operator.builder.build import Builder, BuiltImage
from modelops_operator.builder.bundle import read_bundle
from modelops_operator.builder.failures import BuildError
from modelops_operator.builder.image import Image, Repository, publish
from modelops_operator.builder.image import read_image as read_parts
from modelops_operator.builder.layers import Entry, write_layer
from modelops_operator.builder.referrers import attached
from modelops_operator.builder.scratch import Room
from modelops_operator.builder.target import Target
from modelops_runtime import bento, flavor
from modelops_runtime.bento import ServingRuntime

from tests.builder.conftest import Configure, Unpack
from tests.builder.cosign import Cosign, Pair
from tests.builder.entering import NEEDS_ROOT, in_image
from tests.builder.releases import FILES, SIGNED, build, release, spec_of
from tests.registries.proxy import proxied

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

SITE = "opt/venv/lib/python3.11/site-packages"


@pytest.fixture(scope="session")
def unpacked(
    first: tuple[ModelImageSpec, BuiltImage],
    unpack: Unpack,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The first release's files, as a pod has them."""
    folder = tmp_path_factory.mktemp("root")
    folder.chmod(0o755)
    asyncio.run(unpack(first[1].reference, folder))
    return folder


async def read_image(registry: Any, reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
    parsed = Reference.parse(reference)
    async with registry.connect() as client:
        found = await client.manifest(parsed.repository, parsed.version)
        manifest = found.parsed()
        config = await client.blob(parsed.repository, manifest["config"]["digest"])
    return manifest, json.loads(config)


def leftovers(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def run(*command: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    start = functools.partial(subprocess.run, capture_output=True, text=True, check=False)
    return await asyncio.to_thread(start, command, **settings)


# --- what comes out --------------------------------------------------------------------------


async def test_the_image_has_its_layers_and_says_what_it_is(
    first: tuple[ModelImageSpec, BuiltImage], registry: Any, bundle: Path
) -> None:
    spec, built = first
    manifest, config = await read_image(registry, built.reference)
    titles = [
        layer.get("annotations", {}).get("modelops.dev/content") for layer in manifest["layers"]
    ]
    assert titles[-3:] == [
        "model release_predictor version 1",
        "model release_drift version 1",
        "model release_outlier version 1",
    ]
    assert len(titles) < 64
    assert len(config["rootfs"]["diff_ids"]) == len(titles)
    assert config["config"]["User"] == "65532"
    assert config["config"]["Entrypoint"][0] == "/opt/venv/bin/bentoml"
    labels = config["config"]["Labels"]
    assert labels["modelops.dev/predictor"] == "release_predictor/1"
    assert labels["org.opencontainers.image.version"] == "1"
    expected = read_bundle(bundle, "0.1.0").lock(Target("3.11", "linux/amd64")).digest
    assert built.lock == labels["modelops.dev/lock"] == expected
    assert built.reference == f"{spec.repository}@{built.digest}"
    assert built.pushed + built.reused > 10_000_000


async def test_documents_are_attached_when_asked_for(
    first: tuple[ModelImageSpec, BuiltImage], configure: Configure, registry: Any
) -> None:
    spec, built = first
    config = OperatorConfig.model_validate(configure(builder={"attest": True}))
    assert (await build(config, spec)).digest == built.digest
    assert (await build(config, spec)).digest == built.digest

    repository = Reference.parse(built.reference).repository
    documents = {}
    async with registry.connect() as client:
        # This registry has no referrers API.
        index = await client.manifest(repository, built.digest.replace(":", "-"))
        for entry in index.parsed()["manifests"]:
            manifest = (await client.manifest(repository, entry["digest"])).parsed()
            assert manifest["subject"]["digest"] == built.digest
            assert manifest["artifactType"] == entry["artifactType"]
            content = await client.blob(repository, manifest["layers"][0]["digest"])
            documents[entry["artifactType"]] = json.loads(content)
        assert len(index.parsed()["manifests"]) == len(documents) == 2
        image = (await client.manifest(repository, built.digest)).parsed()
        size = len((await client.manifest(repository, built.digest)).content)
        assert manifest["subject"]["size"] == size
        settings = json.loads(await client.blob(repository, image["config"]["digest"]))

    bill = documents["application/vnd.cyclonedx+json"]
    assert bill["specVersion"] == "1.6"
    components = {each["bom-ref"]: each for each in bill["components"]}
    assert len(components) == len(bill["components"])
    model = components["model:outlier"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"][0]["content"] == settings["rootfs"]["diff_ids"][-1].partition(":")[2]
    assert [key for key in components if key.startswith("pkg:pypi/bentoml@")]

    statement = documents["application/vnd.in-toto+json"]
    assert statement["subject"][0]["digest"]["sha256"] == built.digest.partition(":")[2]
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["lock"] == built.lock
    asked = {each["role"]: each for each in definition["externalParameters"]["models"]}
    assert {role: each["runId"] for role, each in asked.items()} == {
        each.role: each.run_id for each in spec.models
    }


async def test_an_image_is_signed_before_it_has_a_tag(
    *,
    first: tuple[ModelImageSpec, BuiltImage],
    configure: Configure,
    registry: Any,
    ours: Pair,
    cosign: Cosign,
) -> None:
    async with proxied(f"http://{registry.host}") as proxy:
        settings = {"attest": True, "signing": {"key": str(ours.private)}}
        config = OperatorConfig.model_validate(
            configure(registry={"host": proxy.host}, builder=settings)
        )
        spec = first[0].model_copy(
            update={"repository": f"{proxy.host}/modelops/release-predictor"}
        )
        built = await build(config, spec)
        put = [path for method, path, _ in proxy.seen if method == "PUT" and "/manifests/" in path]
    assert built.digest == first[1].digest, "what is said about an image is no part of it"
    *before, last = (path.rpartition("/")[2] for path in put)
    hexdigits = built.digest.partition(":")[2]
    assert {f"sha256-{hexdigits}.sig", f"sha256-{hexdigits}.att"} <= set(before)
    assert last == f"1-{hexdigits[:12]}"
    for done in await cosign.verify(ours.public, first[1].reference):
        assert done.returncode == 0, done.stderr


async def test_without_its_key_an_image_gets_no_tag(
    first: tuple[ModelImageSpec, BuiltImage], configure: Configure, registry: Any, tmp_path: Path
) -> None:
    key = tmp_path / "cosign.key"
    config = OperatorConfig.model_validate(configure(builder={"signing": {"key": str(key)}}))
    spec = first[0].model_copy(update={"repository": f"{registry.host}/modelops/unsigned"})
    with pytest.raises(BuildError, match=r"builder\.signing\.key") as caught:
        await build(config, spec)
    assert caught.value.failure.reason == "SigningKeyInvalid"
    tags = registry.data / "docker/registry/v2/repositories/modelops/unsigned/_manifests/tags"
    assert [path.name for path in tags.iterdir() if not path.name.startswith("environment-")] == []


async def test_models_with_our_flavor_bring_its_files_and_no_others(unpacked: Path) -> None:
    for role, files in FILES.items():
        folder = unpacked / "opt/bento/src/models" / role
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
        wanted = {f"modelops/{name}" for name in files}
        assert wanted | {"modelops/flavor.json"} == found
        assert (folder / "MLmodel").is_file()
    assert (unpacked / "opt/bento/bento.yaml").is_file()
    assert not (unpacked / SITE / "lightgbm").exists()
    python = unpacked / "opt/venv/bin/python3"
    assert python.readlink() == Path("/usr/bin/python3.11")


@NEEDS_ROOT
async def test_the_libraries_run_where_the_image_puts_them(unpacked: Path) -> None:
    program = "import bentoml, treelite, modelops_runtime as m; print(m.__cached__)"
    found = await run(*in_image(unpacked, (), ["/opt/venv/bin/python3", "-Bc", program]))
    assert found.returncode == 0, found.stderr
    assert found.stdout == f"/{SITE}/modelops_runtime/__pycache__/__init__.cpython-311.pyc\n"


# --- again -----------------------------------------------------------------------------------


async def test_a_new_version_sends_little_and_asks_little(
    first: tuple[ModelImageSpec, BuiltImage],
    mlflow: Any,
    configuration: OperatorConfig,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    spec = spec_of(release(mlflow, tmp_path, "two"), configuration, "release-predictor")
    async with Builder(configuration) as builder:
        begun = time.monotonic()
        built = await builder.build(spec, lambda *_: None)
        seconds = time.monotonic() - begun
        site = await builder._opened()
        registry = await site.connections.registry(configuration.registry.host)
        assert isinstance(registry, Registry)
        requests = registry.requests
    record_property("new version, seconds", round(seconds, 3))
    record_property("new version, requests", requests)
    assert built.digest != first[1].digest
    assert built.lock == first[1].lock
    assert built.pushed < 20_000
    assert built.reused > 10_000_000
    assert requests <= 16


async def test_the_same_again_is_the_same_and_sends_nothing(
    first: tuple[ModelImageSpec, BuiltImage], configuration: OperatorConfig
) -> None:
    again = await build(configuration, first[0])
    assert again == first[1]
    assert again.pushed == 0


async def test_large_layers_are_sent_while_they_are_written_and_known_ones_are_not(
    first: tuple[ModelImageSpec, BuiltImage],
    configuration: OperatorConfig,
    registry: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modelops_operator.builder.build.LARGE", 0)
    spec = first[0].model_copy(update={"repository": f"{registry.host}/modelops/large"})
    built = await build(configuration, spec)
    assert built.pushed > 0
    again = await build(configuration, spec)
    assert again == built
    assert again.pushed < built.pushed


async def test_when_the_base_moves_only_its_layers_are_sent(
    first: tuple[ModelImageSpec, BuiltImage],
    configuration: OperatorConfig,
    registry: Any,
    tmp_path: Path,
) -> None:
    known = Reference.parse(first[0].base)
    async with registry.connect() as client:
        manifest = await client.manifest(known.repository, known.version)
        old = await read_parts(client, known.repository, manifest.content)
        layer, blob = write_layer([Entry.of("etc/mended", b"1")], tmp_path / "new", content="base")
        await client.push(known.repository, blob)
        new = Image(layers=(layer, *old.layers), config=old.config, architecture="amd64")
        digest = await publish(Repository(client, known.repository), new, tag="new", annotations={})
    base = f"{known.host}/{known.repository}@{digest}"
    built = await build(configuration, first[0].model_copy(update={"base": base}))
    assert built.lock == first[1].lock
    assert built.pushed < 10_000
    manifest, config = await read_image(registry, built.reference)
    former, _ = await read_image(registry, first[1].reference)
    assert manifest["layers"][0]["digest"] == layer.digest
    assert manifest["layers"][1:] == former["layers"]
    assert config["config"]["Labels"]["org.opencontainers.image.base.digest"] == digest


async def test_layers_that_the_registry_lost_are_brought_again(
    first: tuple[ModelImageSpec, BuiltImage], configuration: OperatorConfig, registry: Any
) -> None:
    """Debian's registry writes a link to a layer in place: two at once can leave it empty."""
    spec, built = first
    manifest, _ = await read_image(registry, built.reference)
    layers = registry.data / "docker/registry/v2/repositories/modelops/release-predictor/_layers"
    lost = [manifest["layers"][place]["digest"] for place in (0, -1)]
    links = [layers / digest.replace(":", "/") / "link" for digest in lost]
    for link in links:
        link.write_text("")
    again = await build(configuration, spec)
    assert again.digest == built.digest
    assert [link.read_text() for link in links] == lost


# --- what may go wrong -----------------------------------------------------------------------


async def test_a_model_without_our_flavor_brings_its_requirements(
    first: tuple[ModelImageSpec, BuiltImage],
    mlflow: Any,
    configuration: OperatorConfig,
    unpack: Unpack,
    tmp_path: Path,
) -> None:
    files = {
        "MLmodel": SIGNED,
        "requirements.txt": b"iniconfig==2.1.0\n",
        "model.pkl": b"never loaded",
    }
    spec = spec_of([mlflow.register("plain", files, tmp_path / "in")], configuration, "plain")
    built = await build(configuration, spec)
    assert built.lock != first[1].lock
    folder = tmp_path / "out"
    folder.mkdir()
    await unpack(built.reference, folder)
    assert (folder / SITE / "iniconfig").is_dir()
    assert (folder / SITE / "bentoml").is_dir()
    assert (folder / "opt/bento/src/models/predictor/model.pkl").read_bytes() == b"never loaded"
    again = await build(configuration, spec)
    assert again == built
    assert again.pushed == 0


async def test_a_predictor_through_mlflow_brings_its_requirements_and_says_so(
    *,
    first: tuple[ModelImageSpec, BuiltImage],
    mlflow: Any,
    configure: Configure,
    registry: Any,
    tmp_path: Path,
) -> None:
    place = tmp_path / "in"
    place.mkdir()
    settings = flavor.write_data(place, "predictor", "treelite", FILES[Role.PREDICTOR])
    files = {
        "MLmodel": yaml.safe_dump(
            yaml.safe_load(SIGNED) | {"flavors": {"modelops": settings}}
        ).encode(),
        "requirements.txt": b"iniconfig==2.1.0\n",
    }
    config = OperatorConfig.model_validate(configure(builder={"attest": True}))
    detectors = [model for model in first[0].models if model.role is not Role.PREDICTOR]
    auto = spec_of([mlflow.register("both", files, place), *detectors], config, "both")
    runtime = auto.runtime.model_copy(update={"profile": ServingRuntime.PYFUNC})
    fast = await build(config, auto)
    built = await build(config, auto.model_copy(update={"runtime": runtime}))
    assert (fast.form, built.form) == ("Fast", "Pyfunc")
    assert fast.lock == first[1].lock != built.lock
    manifest, settings = await read_image(registry, built.reference)
    assert settings["config"]["Labels"]["modelops.dev/profile"] == "Pyfunc"
    reference = Reference.parse(built.reference)
    async with registry.connect() as client:
        files = {}
        for layer in manifest["layers"][-4:]:  # the Bento, and three models
            content = await client.blob(reference.repository, layer["digest"])
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    files[member.name] = file.read() if file else b""
        said = await attached(Repository(client, reference.repository), built.digest)
    models = f"opt/bento/{bento.MODELS}"
    assert f"{models}/predictor/requirements.txt" in files
    assert f"{models}/drift/requirements.txt" not in files
    assert json.loads(files[f"{models}/{bento.RUNTIME}"]) == {"runtime": "Pyfunc"}
    assert "iniconfig" in {part["name"] for part in said[CYCLONEDX]["components"]}
    definition = said[IN_TOTO]["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["profile"] == "Pyfunc"
    properties = said[CYCLONEDX]["metadata"]["component"]["properties"]
    assert {"name": "modelops.dev/profile", "value": "Pyfunc"} in properties
    listed = [each for each in said[CYCLONEDX]["components"] if each["bom-ref"][:6] == "model:"]
    whole = {each["name"] for each in listed if LEFT_OUT not in str(each["properties"])}
    assert whole == {"both"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-e .", "RequirementRejected"),
        ("numpy", "RequirementRejected"),
        ("bentoml==1.0.0", "RequirementsUnresolvable"),
    ],
)
async def test_a_bad_requirement_is_told_and_leaves_no_image(
    *,
    mlflow: Any,
    configuration: OperatorConfig,
    registry: Any,
    tmp_path: Path,
    line: str,
    reason: str,
) -> None:
    files = {"MLmodel": SIGNED, "requirements.txt": f"{line}\n".encode()}
    spec = spec_of([mlflow.register("bad", files, tmp_path / "in")], configuration, "bad")
    with pytest.raises(BuildError) as caught:
        await build(configuration, spec)
    assert caught.value.failure.reason == reason
    assert caught.value.failure.permanent
    assert not (registry.data / "docker/registry/v2/repositories/modelops/bad/_manifests").exists()


async def test_a_damaged_file_is_refused(
    mlflow: Any, configuration: OperatorConfig, tmp_path: Path
) -> None:
    place = tmp_path / "in"
    place.mkdir()
    settings = flavor.write_data(place, "predictor", "treelite", FILES[Role.PREDICTOR])
    description = yaml.safe_dump({"flavors": {"modelops": settings}}).encode()
    damaged = {"MLmodel": description, f"{flavor.DATA}/model.treelite": b"other trees"}
    spec = spec_of([mlflow.register("damaged", damaged, place)], configuration, "damaged")
    with pytest.raises(BuildError, match=r"model damaged version 1 is damaged") as caught:
        await build(configuration, spec)
    assert caught.value.failure.reason == "ModelInvalid"


async def test_a_runtime_that_the_builder_lacks_is_told(
    first: tuple[ModelImageSpec, BuiltImage], configuration: OperatorConfig
) -> None:
    spec = first[0].model_copy(
        update={"runtime": first[0].runtime.model_copy(update={"version": "9.9"})}
    )
    with pytest.raises(BuildError, match=r"does not carry the serving runtime 9\.9, only 0\.1\.0"):
        await build(configuration, spec)


@NEEDS_ROOT
# MLflow leaves the connection of a download that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*unclosed <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("size", [3_000_000, 700_000], ids=["model", "layer"])
async def test_a_full_disk_is_told_and_leaves_no_image(
    mlflow: Any, configuration: OperatorConfig, registry: Any, tmp_path: Path, size: int
) -> None:
    files = {"MLmodel": SIGNED, "requirements.txt": b"iniconfig==2.1.0\n", "m": os.urandom(size)}
    model = mlflow.register("too_large", files, tmp_path / "in")
    spec = spec_of([model], configuration, "too-large")
    disk = tmp_path / "disk"
    disk.mkdir()
    await run("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tempfile.tempdir", str(disk))
            patch.setattr(Room, "LIBRARIES", 0)
            patch.setattr(Room, "COPIES", 0)  # else it is refused before
            with pytest.raises(BuildError, match=r"No space left on device.*more disk") as caught:
                await build(configuration, spec)
        assert leftovers(disk) == []
    finally:
        # Lazily: a download that failed may hold a file there until it is collected.
        await run("umount", "--lazy", str(disk))
    assert caught.value.failure.reason == "BuildFailed"
    repositories = registry.data / "docker/registry/v2/repositories/modelops"
    tags = (repositories / "too-large").glob("_manifests/tags/*")
    assert not [path.name for path in tags if not path.name.startswith("environment-")]


async def test_a_registry_that_refuses_us_is_told(
    first: tuple[ModelImageSpec, BuiltImage],
    configure: Configure,
    guarded: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODELOPS_REGISTRY_USERNAME", "builder")
    monkeypatch.setenv("MODELOPS_REGISTRY_PASSWORD", "wrong")
    config = OperatorConfig.model_validate(configure(registry={"host": guarded.host}))
    spec = first[0].model_copy(update={"repository": f"{guarded.host}/modelops/release-predictor"})
    with pytest.raises(BuildError, match="check that the credentials") as caught:
        await build(config, spec)
    assert caught.value.failure.reason == "ImageRegistryDenied"


async def test_a_build_that_is_cancelled_leaves_nothing_behind(
    first: tuple[ModelImageSpec, BuiltImage],
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = OperatorConfig.model_validate(configure(registry={"prefix": "cancelled"}))
    started = asyncio.Event()

    def progress(step: str, pushed: int) -> None:
        if step == "Installing packages" and pushed > 1_000_000:
            started.set()

    spec = first[0].model_copy(update={"repository": f"{config.registry.host}/cancelled/it"})
    async with Builder(config) as builder:
        building = asyncio.create_task(builder.build(spec, progress))
        await started.wait()
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
    assert leftovers(tmp_path) == []
