"""The command `modelops`: images built and looked at from a desk."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from modelops_operator.adapters.image_signatures import trusted_keys
from modelops_operator.adapters.oci import Reference
from modelops_operator.api.resources import ModelImageSpec
from modelops_operator.builder.build import BuiltImage
from modelops_operator.cli.main import main
from modelops_operator.cli.naming import ModelArgument

from tests.builder.conftest import RunningMlflow
from tests.builder.cosign import Pair
from tests.registries.servers import RunningRegistry

pytestmark = pytest.mark.contract

Modelops = Callable[..., Result]


@pytest.fixture
def modelops(mlflow: RunningMlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Modelops:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.uri)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return run


@pytest.fixture
def options(
    first: tuple[ModelImageSpec, BuiltImage], mlflow: RunningMlflow, base: str, bundle: Path
) -> list[str]:
    """What builds the first release of the builder's tests once more."""
    spec, _ = first
    versions = {str(model.role): model for model in spec.models}
    drift = versions["drift"]
    mlflow.client().set_registered_model_alias(drift.name, "candidate", drift.version)
    return [
        *("--model", f"{versions['predictor'].name}/{versions['predictor'].version}"),
        *("--model", f"models:/{drift.name}@candidate"),
        *("--model", f"outlier={versions['outlier'].name}/{versions['outlier'].version}"),
        *("--base", base, "--insecure", "--runtime-bundle", str(bundle)),
    ]


def test_an_image_from_a_desk_is_the_builders(
    first: tuple[ModelImageSpec, BuiltImage],
    options: list[str],
    modelops: Modelops,
    registry: RunningRegistry,
) -> None:
    spec, built = first
    done = modelops("build", *options, "--push", f"{spec.repository}:from-a-desk", "--attest")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-2:] == [f"{spec.repository}:from-a-desk", built.digest]
    assert "model release_predictor version 1" in done.stdout

    async def tagged() -> Any:
        async with registry.connect() as client:
            return await client.manifest(Reference.parse(built.reference).repository, "from-a-desk")

    assert asyncio.run(tagged()).digest == built.digest

    shown = modelops("image", "inspect", f"{spec.repository}:from-a-desk", "--insecure")
    assert shown.exit_code == 0, shown.output
    told = modelops("image", "inspect", built.reference, "--insecure", "--json")
    said = json.loads(told.stdout)
    assert said["digest"] == built.digest
    assert said["models"] == {
        "predictor": "release_predictor/1",
        "drift": "release_drift/1",
        "outlier": "release_outlier/1",
    }
    assert said["lock"] == built.lock
    assert said["base"] == spec.base
    assert said["sources"].keys() == set(said["models"].values())
    assert any(library.startswith("bentoml==") for library in said["libraries"])
    for words in (*said["models"].values(), built.lock, said["builder"]):
        assert words in shown.stdout


def test_an_image_is_signed_and_its_signature_verified(
    *,
    first: tuple[ModelImageSpec, BuiltImage],
    options: list[str],
    modelops: Modelops,
    ours: Pair,
    others: Pair,
) -> None:
    place = f"{first[0].repository}:signed"
    done = modelops("build", *options, "--push", place, "--key", str(ours.private))
    assert done.exit_code == 0, done.output
    inspect = ("image", "inspect", place, "--insecure")
    assert "not verified: name the public key with --key" in modelops(*inspect).stdout
    told = json.loads(modelops(*inspect, "--key", str(ours.public), "--json").stdout)
    assert told["signed_by"] == trusted_keys(ours.public)[0].fingerprint
    refused = modelops(*inspect, "--key", str(others.public))
    assert refused.exit_code == 1
    assert "is by a key that is trusted" in " ".join(refused.output.split())


def test_an_image_is_the_same_in_another_process_folder_and_place_and_an_oci_layout(
    first: tuple[ModelImageSpec, BuiltImage],
    options: list[str],
    modelops: Modelops,
    mlflow: RunningMlflow,
    tmp_path: Path,
) -> None:
    """Nothing is remembered in a new folder, so all of it is made anew."""
    folder, scratch = tmp_path / "layout", tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("modelops")), "build", *options),
            *("--output", str(folder), "--json"),
        ],
        cwd=scratch,
        env=os.environ
        | {"MLFLOW_TRACKING_URI": mlflow.uri, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        | {"TMPDIR": str(scratch), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(scratch.iterdir()) == []
    summary = json.loads(done.stdout)
    assert summary["digest"] == first[1].digest
    assert summary["reference"] == f"oci:{folder}:1"
    assert summary["lock"] == first[1].lock
    assert summary["form"] == "Fast"
    assert json.loads((folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    manifest = exported(folder, summary["digest"])
    config = json.loads(blob(folder, manifest["config"]))
    assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"])
    for layer in manifest["layers"]:
        blob(folder, layer)

    into = ("--output", str(folder), "--json")
    again = json.loads(modelops("build", *options, *into).stdout)
    assert (again["digest"], again["pushed"]) == (summary["digest"], 0)
    fast = json.loads(modelops("build", *options, "--runtime", "Fast", *into).stdout)
    config = json.loads(blob(folder, exported(folder, fast["digest"])["config"]))
    assert config["config"]["Labels"]["modelops.dev/profile"] == "Fast"


def exported(folder: Path, digest: str) -> dict[str, Any]:
    """Read the manifest of the one image of a layout, which has to have this digest."""
    (entry,) = json.loads((folder / "index.json").read_text())["manifests"]
    assert entry["digest"] == digest
    manifest: dict[str, Any] = json.loads(blob(folder, entry))
    return manifest


def blob(folder: Path, descriptor: dict[str, Any]) -> bytes:
    """Read a blob of a layout, which has to be what its descriptor says."""
    algorithm, _, value = descriptor["digest"].partition(":")
    content: bytes = (folder / "blobs" / algorithm / value).read_bytes()
    assert len(content) == descriptor["size"]
    assert hashlib.new(algorithm, content).hexdigest() == value
    return content


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ([], "say either --push REF or --output DIR"),
        (["--output", "it", "--key", __file__], "--key goes with --push REF"),
        (["--push", "somewhere.test/it", "--output", "it"], "say either --push REF or --output"),
        (["--output", "it", "--model", "unnamed"], "neither NAME@ALIAS nor NAME/VERSION"),
        (["--output", "it", "--model", "judge=it/1"], "'judge' is not a role"),
        (["--output", "it", "--model", "release_drift@spare"], "has no alias 'spare', only"),
        (["--output", "it", "--model", "drift=release_outlier/1"], "would be the drift"),
        (["--output", "it", "--runtime", "Slow"], "not one of 'Auto', 'Fast', 'Pyfunc'"),
        (["--output", "it", "--model", "nobody@candidate"], "has no registered model 'nobody'"),
        (["--output", "it", "--base", "127.0.0.1:9/base@sha256:00"], "127.0.0.1:9"),
        (["--output", "it", "--base", "unnamed"], "--base: 'unnamed' is not host/repository"),
    ],
)
def test_what_cannot_be_built_is_told_in_a_sentence(
    options: list[str], modelops: Modelops, change: list[str], told: str
) -> None:
    done = modelops("build", *options, *change)
    assert done.exit_code != 0
    assert told in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_an_image_of_others_is_told(modelops: Modelops, base: str) -> None:
    done = modelops("image", "inspect", base, "--insecure")
    assert done.exit_code == 1
    assert "was not built by modelops" in done.output


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ("a@b", ModelArgument("a", alias="b")),
        ("a/7", ModelArgument("a", "7")),
        ("models:/a.b.c@d", ModelArgument("a.b.c", alias="d")),
    ],
)
def test_models_are_named_as_in_mlflow(text: str, argument: ModelArgument) -> None:
    assert ModelArgument.parse(text) == argument
