"""Every object of the table, read by pydantic."""

import pytest
from modelops_operator.api.resources import ModelDeployment, ModelImage, validation_message
from pydantic import ValidationError

from tests.api.objects import BAD, GOOD, Bad, Good

pytestmark = pytest.mark.unit

MODELS: dict[str, type[ModelDeployment | ModelImage]] = {
    "ModelDeployment": ModelDeployment,
    "ModelImage": ModelImage,
}


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.title)
def test_takes(case: Good) -> None:
    parsed = MODELS[case.kind].model_validate(case.manifest())

    again = MODELS[case.kind].model_validate(case.manifest() | {"spec": parsed.spec.to_manifest()})
    assert again.spec == parsed.spec


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.title)
def test_refuses(case: Bad) -> None:
    with pytest.raises(ValidationError) as refusal:
        MODELS[case.kind].model_validate(case.manifest())

    message = validation_message(refusal.value)
    assert message.startswith(f"{case.field}: " if case.field else "")
    assert case.says in message
    assert "\n" not in message


def test_the_titles_are_unique() -> None:
    titles = [case.title for case in (*GOOD, *BAD)]
    assert len(set(titles)) == len(titles)
