from dataclasses import replace
from typing import Any

import pytest
from modelops_operator.api.facts import Failure, Role
from modelops_operator.api.resources import ModelImage
from modelops_operator.core.findings import Outlook
from modelops_operator.core.image import (
    built_release,
    image_finding,
    missing_base,
    sanitized,
    wanted_image,
)
from modelops_runtime.bento import ServingRuntime

from tests.core.simulation import (
    BASE,
    condition,
    configuration,
    failed_build,
    finished_build,
    version,
)

pytestmark = pytest.mark.unit

VERSIONS = {role: version(role, "1") for role in Role}
WANTED = wanted_image(VERSIONS, rebuild=None, config=configuration())


def live(status: dict[str, Any]) -> dict[str, Any]:
    return {**WANTED, "status": status}


def test_the_image_is_one_that_the_api_takes() -> None:
    image = ModelImage.model_validate(wanted_image(VERSIONS, rebuild="x", config=configuration()))
    assert image.metadata.namespace == "modelops-system"
    assert image.spec.repository == "registry.example:5000/modelops/employment"
    assert image.spec.rebuild == "x"
    assert [model.role for model in image.spec.models] == list(Role)


def test_the_name_tells_the_model_and_hashes_what_is_asked_for() -> None:
    names = {
        *(
            wanted_image(VERSIONS, rebuild=None, config=configuration(), profile=profile)[
                "metadata"
            ]["name"]
            for profile in (ServingRuntime.FAST, ServingRuntime.PYFUNC)
        ),
        wanted_image(VERSIONS, rebuild=None, config=configuration())["metadata"]["name"],
        wanted_image(VERSIONS, rebuild="x", config=configuration())["metadata"]["name"],
        wanted_image(VERSIONS, rebuild=None, config=configuration(runtime={"version": "0.2.0"}))[
            "metadata"
        ]["name"],
        wanted_image(
            {Role.PREDICTOR: VERSIONS[Role.PREDICTOR]}, rebuild=None, config=configuration()
        )["metadata"]["name"],
    }
    assert len(names) == 6
    assert WANTED["metadata"]["name"] in names
    assert all(name.startswith("employment-") and len(name) == 23 for name in names)


def test_a_name_from_before_there_was_a_choice_of_runtimes_stays() -> None:
    assert WANTED["metadata"]["name"] == "employment-8068d4e83047"
    assert WANTED["spec"]["runtime"] == {"version": "0.1.0"}


def test_the_order_in_which_versions_became_known_does_not_matter() -> None:
    reverse = dict(reversed(VERSIONS.items()))
    assert wanted_image(reverse, rebuild=None, config=configuration()) == WANTED


def test_without_a_prefix_the_repository_has_none() -> None:
    config = configuration(registry={"host": "registry.example", "prefix": ""})
    image = wanted_image(VERSIONS, rebuild=None, config=config)
    assert image["spec"]["repository"] == "registry.example/employment"


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("employment", "employment"),
        ("main.ml_models.Employment", "main-ml-models-employment"),
        ("Größe & Gewicht", "gr-e-gewicht"),
        ("模型", "model"),
        ("__", "model"),
        ("a" * 49 + "-" + "b" * 99, "a" * 49),
    ],
)
def test_names_of_models_become_names_of_objects(model: str, slug: str) -> None:
    assert sanitized(model) == slug


REFUSED = Failure(reason="QuotaExceeded", message="exceeded quota: images", permanent=True)


@pytest.mark.parametrize(
    ("status", "refusal", "expected"),
    [
        pytest.param(
            None, None, ("Unknown", "WaitingForBuilder", Outlook.UNDERWAY), id="asked for"
        ),
        pytest.param(
            None, REFUSED, ("False", "QuotaExceeded", Outlook.STUCK), id="cannot be asked for"
        ),
        pytest.param(
            {"observedGeneration": -1},
            None,
            ("Unknown", "WaitingForBuilder", Outlook.UNDERWAY),
            id="not taken up",
        ),
        pytest.param(
            {"conditions": [condition("Ready", "Unknown", "Building", "step 2")]},
            None,
            ("Unknown", "Building", Outlook.UNDERWAY),
            id="building",
        ),
        pytest.param(
            {"conditions": [condition("Ready", "False", "ImageRegistryUnreachable", "503")]},
            None,
            ("False", "ImageRegistryUnreachable", Outlook.UNDERWAY),
            id="failed for now",
        ),
        pytest.param(
            failed_build(),
            None,
            ("False", "RequirementsUnresolvable", Outlook.STUCK),
            id="failed",
        ),
        pytest.param(
            {"conditions": [condition("Stalled", "True", "ModelInvalid", "a pickle")]},
            None,
            ("False", "ModelInvalid", Outlook.STUCK),
            id="failed without a word in Ready",
        ),
        pytest.param(
            {"conditions": [condition("Ready", "True", "Built", "pushed")]},
            None,
            ("Unknown", "Built", Outlook.UNDERWAY),
            id="ready without saying where",
        ),
        pytest.param(finished_build(WANTED), None, ("True", "Built", Outlook.SETTLED), id="built"),
    ],
)
def test_the_builders_word_is_passed_through(
    status: dict[str, Any] | None, refusal: Failure | None, expected: tuple[str, str, Outlook]
) -> None:
    image = None if status is None else live(status)
    finding = image_finding(WANTED, image, refusal)
    said = finding.condition
    assert (said.status, said.reason, finding.outlook) == expected
    assert said.message
    release = built_release(WANTED, (), image)
    assert (release is not None) == (said.status == "True")


def test_an_image_on_its_way_out_is_waited_for() -> None:
    image = live(finished_build(WANTED))
    image["metadata"] = {**image["metadata"], "deletionTimestamp": "2026-03-01T12:00:00Z"}
    assert image_finding(WANTED, image, None).outlook is Outlook.UNDERWAY


def test_the_image_has_the_python_that_the_predictor_was_logged_with() -> None:
    newer = BASE.replace("base@", "newer@")
    config = configuration(builder={"bases": {"3.11": BASE, "3.12": newer}})
    for recorded, python, base in (("3.12", "3.12", newer), ("3.13", "3.11", BASE)):
        predictor = replace(VERSIONS[Role.PREDICTOR], python=recorded)
        versions = VERSIONS | {Role.PREDICTOR: predictor}
        spec = wanted_image(versions, rebuild=None, config=config)["spec"]
        assert (spec["python"], spec["base"]) == (python, base)
    assert WANTED["spec"]["python"] == "3.11"


def test_a_missing_base_image_is_told_with_the_way_out() -> None:
    assert missing_base(VERSIONS, configuration()) is None
    finding = missing_base(VERSIONS, configuration(builder={"python": "3.12"}))
    assert finding is not None
    assert finding.outlook is Outlook.STUCK
    assert 'builder.bases["3.12"]' in finding.condition.message
