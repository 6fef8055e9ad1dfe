"""Documents about images, attached to one in a real registry that has no referrers API."""

from typing import Any

import pytest
from modelops_operator.adapters.oci import sha256
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import ImageModel, ImageRuntime, ModelImageSpec
from modelops_operator.builder.attestations import (
    CYCLONEDX,
    IN_TOTO,
    LEFT_OUT,
    Contents,
    provenance,
    sbom,
)
from modelops_operator.builder.image import Repository
from modelops_operator.builder.lock import Lock, LockedWheel
from modelops_operator.builder.referrers import Subject, attach

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

WHEEL = LockedWheel(name="toy", version="1", sha256="1" * 64, size=1, url="https://i/toy.whl")
CONTENTS = Contents(
    spec=ModelImageSpec(
        models=(
            ImageModel(role=Role.PREDICTOR, name="m", version="3", run_id="r", source="s3://m"),
        ),
        tracking_uri="http://mlflow",
        repository="r/models/m",
        runtime=ImageRuntime(version="0.1.0"),
        python="3.11",
        platforms=("linux/amd64",),
        base=f"r/base@{sha256(b'base')}",
    ),
    lock=Lock((WHEEL,)),
    digest=sha256(b"image"),
    layers={"predictor": sha256(b"layer")},
    fast={"predictor"},
)


async def test_documents_are_listed_once_under_the_image(registry: Any) -> None:
    subject = Subject(digest=CONTENTS.digest, size=5)
    async with registry.connect() as client:
        repository = Repository(client, "t/attested")
        for _ in range(2):
            await attach(repository, subject, CYCLONEDX, sbom(CONTENTS))
            await attach(repository, subject, IN_TOTO, provenance(CONTENTS))
        index = await client.manifest("t/attested", subject.tag)
        entries = index.parsed()["manifests"]
        assert {entry["artifactType"] for entry in entries} == {CYCLONEDX, IN_TOTO}
        assert len(entries) == 2
        for entry in entries:
            manifest = await client.manifest("t/attested", entry["digest"])
            assert manifest.parsed()["subject"]["digest"] == CONTENTS.digest


async def test_documents_name_what_is_inside() -> None:
    references = [each["bom-ref"] for each in sbom(CONTENTS)["components"]]
    assert references == ["base", "model:predictor", "pkg:pypi/toy@1"]
    model = sbom(CONTENTS)["components"][1]
    left_out = [each["value"] for each in model["properties"] if each["name"] == LEFT_OUT]
    assert left_out == ["all but MLmodel and modelops/"]
    definition = provenance(CONTENTS)["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["models"][0]["runId"] == "r"
    assert [each["digest"]["sha256"] for each in definition["resolvedDependencies"]] == [
        each.partition(":")[2] for each in (sha256(b"base"), sha256(b"layer"))
    ] + ["1" * 64]
