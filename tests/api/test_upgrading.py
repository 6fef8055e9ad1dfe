"""What a released version has stored, the definitions of today take, keep whole, and understand."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import modelops_operator
import pytest
import yaml
from modelops_operator.api.resources import GROUP, ModelDeployment, ModelImage

from tests.apiserver import http_client

pytestmark = pytest.mark.contract

RELEASED = sorted((Path(__file__).parent / "released").glob("*.yaml"))
MODELS: dict[str, type[ModelDeployment | ModelImage]] = {
    "ModelDeployment": ModelDeployment,
    "ModelImage": ModelImage,
}
NAMESPACE = "released"


@pytest.fixture(scope="module")
def connection(apiserver: Path) -> Iterator[httpx.Client]:
    with http_client(apiserver) as client:
        client.post("/api/v1/namespaces", json={"metadata": {"name": NAMESPACE}})
        yield client
        for kind in MODELS:
            client.delete(path(kind))
        client.delete(f"/api/v1/namespaces/{NAMESPACE}")


def path(kind: str, version: str = "v1alpha1") -> str:
    return f"/apis/{GROUP}/{version}/namespaces/{NAMESPACE}/{kind.lower()}s"


def contained(part: Any, whole: Any) -> bool:
    """Tell whether nothing of a tree is missing in another, which may have defaults besides."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(
            key in whole and contained(value, whole[key])
            for key, value in part.items()
            if value is not None
        )
    if isinstance(part, Sequence) and not isinstance(part, str):
        return len(part) == len(whole) and all(map(contained, part, whole))
    return bool(part == whole)


@pytest.mark.parametrize("release", RELEASED, ids=lambda release: release.stem)
def test_what_was_stored_is_taken_kept_and_understood(
    connection: httpx.Client, release: Path
) -> None:
    for manifest in yaml.safe_load_all(release.read_text()):
        version = manifest["apiVersion"].rpartition("/")[2]
        answer = connection.post(path(manifest["kind"], version), json=manifest)
        assert answer.is_success, answer.text
        stored = answer.json()
        assert contained(manifest["spec"], stored["spec"])
        MODELS[manifest["kind"]].model_validate(stored)


def test_this_version_is_among_them() -> None:
    root = Path(modelops_operator.__file__).parents[1]
    line = next(
        line for line in (root / "pyproject.toml").read_text().splitlines() if "version =" in line
    )
    assert line.split('"')[1] in {release.stem for release in RELEASED}
