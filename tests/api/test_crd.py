"""The generated definitions: as they are checked in, structural, bounded, and described."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from modelops_operator.api import crd

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
DEFINITIONS = (crd.deployment_definition(), crd.image_definition())


def schemas() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema below both roots, with its path."""
    for definition in DEFINITIONS:
        (version,) = definition["spec"]["versions"]
        yield from _below(definition["spec"]["names"]["kind"], version["schema"]["openAPIV3Schema"])


def _below(path: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from _below(f"{path}.{name}", field)
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from _below(f"{path}{suffix}", schema[key])


@pytest.mark.parametrize("folder", crd.FOLDERS, ids=str)
def test_what_is_checked_in_is_what_the_models_say(folder: Path) -> None:
    stored = {path.name: path.read_text() for path in (ROOT / folder).glob("*.yaml")}
    assert stored == crd.rendered(), "run `python -m modelops_operator.api.crd`"


def test_writes_below_the_given_root(tmp_path: Path) -> None:
    written = crd.write(tmp_path)
    assert len(written) == 4
    assert all(path.is_relative_to(tmp_path) and path.stat().st_size for path in written)


def test_every_field_says_what_it_is() -> None:
    silent = [
        path
        for path, schema in schemas()
        if not schema.get("description") and not path.endswith(("[]", "{}", ".metadata"))
    ]
    assert silent == []


def test_everything_has_a_bound() -> None:
    needed = {
        "string": ("maxLength", "enum", "format"),
        "integer": ("maximum",),
        "array": ("maxItems",),
    }
    unbounded = [
        path
        for path, schema in schemas()
        if not path.endswith((".apiVersion", ".kind"))
        and not any(bound in schema for bound in needed.get(schema.get("type", ""), (*schema,)))
    ]
    assert unbounded == []
    maps = [schema for _, schema in schemas() if "additionalProperties" in schema]
    assert maps
    assert all("maxProperties" in schema for schema in maps)


def test_is_structural() -> None:
    forbidden = {"$ref", "$defs", "title", "nullable", "oneOf", "allOf", "not", "const", "ge", "le"}
    for path, schema in schemas():
        assert not forbidden & set(schema), path
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
        assert "anyOf" not in schema or schema.get("x-kubernetes-int-or-string"), path
        assert not ("properties" in schema and "additionalProperties" in schema), path


def test_no_number_is_a_float() -> None:
    assert all(schema.get("type") != "number" for _, schema in schemas())


def test_every_list_is_keyed_or_replaced_whole() -> None:
    lists = {path: schema for path, schema in schemas() if schema.get("type") == "array"}
    assert lists
    for path, schema in lists.items():
        if schema["x-kubernetes-list-type"] == "atomic":
            # Argo CD would stay OutOfSync for ever.
            assert not [inner for inner, found in _below("", schema) if "default" in found], path
        else:
            assert schema["x-kubernetes-list-type"] in {"map", "set"}, path
        for key in schema.get("x-kubernetes-list-map-keys", ()):
            assert key in schema["items"]["required"], path


def test_the_only_default_in_a_status_marks_a_new_object() -> None:
    defaults = {path: schema["default"] for path, schema in schemas() if "default" in schema}
    in_status = {path: default for path, default in defaults.items() if ".status" in path}
    assert in_status == {
        "ModelDeployment.status": {"observedGeneration": -1},
        "ModelImage.status": {"observedGeneration": -1},
    }
    assert "ModelDeployment.spec.suspend" not in defaults
    assert defaults["ModelDeployment.spec.monitoring.window"] == "5m"


def test_uninstalling_the_chart_keeps_the_definitions() -> None:
    for definition in DEFINITIONS:
        assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
