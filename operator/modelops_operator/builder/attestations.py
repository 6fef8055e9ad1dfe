"""What an image is made of and where that came from, as documents that other tools read.

Both have no clock and no random part: the same image has the same documents, whenever it is built.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from modelops_runtime import flavor

from modelops_operator.adapters.mlflow import MLMODEL
from modelops_operator.api.resources import ImageModel, ModelImageSpec
from modelops_operator.builder.lock import Lock, LockedWheel

CYCLONEDX: Final = "application/vnd.cyclonedx+json"
IN_TOTO: Final = "application/vnd.in-toto+json"
BUILDER: Final = "https://modelops.dev/builder"
LEFT_OUT: Final = "modelops.dev/left-out"
"""Property of what is in the image without all that it came with."""
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_BILL_OF_MATERIALS: Final = "https://cyclonedx.org/bom"
_PROVENANCE: Final = "https://slsa.dev/provenance/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What went into an image."""

    spec: ModelImageSpec
    lock: Lock
    digest: str
    """Of the image's manifest."""
    layers: Mapping[str, str]
    """Digest of the uncompressed layer of each model, by its role."""
    fast: Container[str]
    """Roles of the models of which only our flavor's files are in the image."""

    @property
    def models(self) -> Sequence[ImageModel]:
        """Give the models in an order that does not depend on the spec's."""
        return sorted(self.spec.models, key=lambda model: model.role)


def sbom(contents: Contents) -> dict[str, Any]:
    """Write the software bill of materials: CycloneDX 1.6, a JSON tree."""
    base = contents.spec.base
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, contents.digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": "image",
                "name": contents.spec.repository,
                "version": contents.digest,
                "hashes": _hashes(contents.digest),
                "properties": [
                    {"name": "modelops.dev/profile", "value": str(contents.spec.runtime.profile)},
                    {"name": LEFT_OUT, "value": "of wheels the byte code that they bring along"},
                ],
            },
            "tools": {"components": [_tool()]},
        },
        "components": [
            {
                "type": "container",
                "bom-ref": "base",
                "name": base.partition("@")[0],
                "version": base.partition("@")[2],
                "hashes": _hashes(base.partition("@")[2]),
            },
            *(_model(model, contents) for model in contents.models),
            *(_library(wheel) for wheel in contents.lock.wheels),
        ],
    }


def stated_sbom(contents: Contents) -> dict[str, Any]:
    """Write the bill of materials as an in-toto statement, which can be signed."""
    return _statement(contents, _BILL_OF_MATERIALS, sbom(contents))


def provenance(contents: Contents) -> dict[str, Any]:
    """Write where the image came from: an in-toto statement with SLSA's provenance 1.0."""
    spec = contents.spec
    definition = {
        "buildType": f"{BUILDER}/model-image/v1",
        "externalParameters": {
            "models": [
                {
                    "role": model.role,
                    "name": model.name,
                    "version": model.version,
                    "runId": model.run_id,
                    "source": model.source,
                }
                for model in contents.models
            ],
            "python": spec.python,
            "platforms": list(spec.platforms),
            "runtime": spec.runtime.version,
            "profile": str(spec.runtime.profile),
            "lock": contents.lock.digest,
        },
        "resolvedDependencies": [
            {"uri": f"oci://{spec.base}", "digest": _digest(spec.base.partition("@")[2])},
            *(
                {
                    "uri": model.source,
                    "name": f"{model.name}/{model.version}",
                    "digest": _digest(contents.layers[model.role]),
                }
                for model in contents.models
            ),
            *(
                {"uri": _purl(wheel), "digest": {"sha256": wheel.sha256}}
                for wheel in contents.lock.wheels
            ),
        ],
    }
    builder = {"id": BUILDER, "version": {"modelops-operator": _own_version()}}
    predicate = {"buildDefinition": definition, "runDetails": {"builder": builder}}
    return _statement(contents, _PROVENANCE, predicate)


def _statement(
    contents: Contents, predicate_type: str, predicate: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "_type": _STATEMENT,
        "subject": [{"name": contents.spec.repository, "digest": _digest(contents.digest)}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def _own_version() -> str:
    return version("modelops-operator")


def _tool() -> dict[str, Any]:
    return {"type": "application", "name": "modelops-builder", "version": _own_version()}


def _library(wheel: LockedWheel) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": _purl(wheel),
        "name": wheel.name,
        "version": wheel.version,
        "purl": _purl(wheel),
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
    }


def _model(model: ImageModel, contents: Contents) -> dict[str, Any]:
    left_out = {"name": LEFT_OUT, "value": f"all but {MLMODEL} and {flavor.DATA}/"}
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{model.role}",
        "name": model.name,
        "version": model.version,
        "hashes": _hashes(contents.layers[model.role]),
        "properties": [
            {"name": "modelops.dev/role", "value": model.role},
            {"name": "modelops.dev/run", "value": model.run_id},
            *([left_out] if model.role in contents.fast else ()),
        ],
    }


def _purl(wheel: LockedWheel) -> str:
    return f"pkg:pypi/{wheel.name}@{wheel.version}"


def _digest(digest: str) -> dict[str, str]:
    return {"sha256": digest.partition(":")[2]}


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest.partition(":")[2]}]
