"""A release: the model versions that are served together, and the image that serves them.

What a Deployment runs is read back from its own annotation, never from memory: an operator that was
killed, upgraded or replaced knows as much as the one before.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from modelops_runtime.bento import ServingRuntime

from modelops_operator.api.facts import Role
from modelops_operator.core.state import Manifest

RELEASE = "modelops.dev/release"
"""Annotation of the Deployment: what it runs, as `Release.to_json` writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedModel:
    """One model version in a release, and the reference that led to it."""

    role: Role
    name: str
    alias: str | None
    """None where the user pinned the version."""
    version: str
    run_id: str

    @property
    def content(self) -> tuple[str, str, str, str]:
        """What is served, whichever way it was named."""
        return (self.role, self.name, self.version, self.run_id)

    def to_dict(self) -> dict[str, str]:
        """Write the model as `status.models` lists it."""
        alias = {} if self.alias is None else {"alias": self.alias}
        return {
            "role": str(self.role),
            "name": self.name,
            **alias,
            "version": self.version,
            "runId": self.run_id,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote. Raises KeyError, TypeError or ValueError."""
        return cls(
            role=Role(data["role"]),
            name=str(data["name"]),
            alias=data.get("alias"),
            version=str(data["version"]),
            run_id=str(data.get("runId") or ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What one revision of a deployment serves."""

    models: tuple[ReleasedModel, ...]
    """One per role, in the order of the roles."""
    reference: str
    """The image, by digest: `registry/repository@sha256:...`."""
    lock: str
    """Digest of the lock that the image was built from; empty when unknown."""
    runtime: str
    """Version of the serving runtime in the image; empty when unknown."""
    profile: str = ServingRuntime.AUTO
    """The `spec.serving.runtime` that the image was built for."""
    form: str = ""
    """How the image serves the predictor, Fast or Pyfunc; empty when unknown."""
    rebuild: str | None = None
    """Value of the wish `modelops.dev/rebuild` that this image was built for."""

    @property
    def predictor(self) -> ReleasedModel:
        """The model that answers the requests. Raises StopIteration where there is none."""
        return next(model for model in self.models if model.role is Role.PREDICTOR)

    @property
    def content(self) -> frozenset[tuple[str, str, str, str]]:
        """Which model versions are served."""
        return frozenset(model.content for model in self.models)

    def serves(self, models: Iterable[ReleasedModel], profile: str) -> bool:
        """Whether these model versions, however they are named, are served in this way."""
        return self.profile == profile and self.content == {model.content for model in models}

    @property
    def revision(self) -> str:
        """10 hex digits that change with what is served and with nothing else."""
        return _revision(self.content, self.reference)

    def describe(self) -> str:
        """Name the models for people: `employment 12, employment_drift 12`."""
        return ", ".join(f"{model.name} {model.version}" for model in self.models)

    def image(self) -> dict[str, str]:
        """Write the image as `status.image` shows it."""
        return {"reference": self.reference, **({"lock": self.lock} if self.lock else {})}

    def runtimes(self) -> dict[str, str]:
        """Write the serving runtime as `status.runtime` shows it; empty when unknown."""
        if not self.runtime:
            return {}
        return {
            "version": self.runtime,
            **self._way(),
            **({"message": self._why()} if self.form == ServingRuntime.PYFUNC else {}),
        }

    def _way(self) -> dict[str, str]:
        return {
            **({} if self.profile == ServingRuntime.AUTO else {"profile": self.profile}),
            **({"form": self.form} if self.form else {}),
        }

    def _why(self) -> str:
        """Tell why the predictor is not served from a compiled form."""
        if self.profile == ServingRuntime.PYFUNC:
            return "spec.serving.runtime is Pyfunc"
        return (
            f"{self.predictor.name} {self.predictor.version} has no fast form: register it with"
            " modelops_training"
        )

    def to_json(self) -> str:
        """Write the release as the Deployment's annotation carries it."""
        release = {
            "models": [model.to_dict() for model in self.models],
            "image": self.image(),
            "runtime": self.runtime,
            **self._way(),
            "revision": self.revision,
            **({} if self.rebuild is None else {"rebuild": self.rebuild}),
        }
        return json.dumps(release, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read what `to_json` wrote; None when it is damaged or was edited by hand."""
        try:
            data = json.loads(text)
            release = cls(
                models=read_models(data["models"]),
                reference=str(data["image"]["reference"]),
                lock=str(data["image"].get("lock", "")),
                runtime=str(data["runtime"]),
                profile=str(data.get("profile", ServingRuntime.AUTO)),
                form=str(data.get("form", "")),
                rebuild=data.get("rebuild"),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        # The revision covers the models and the image: who edits those is not believed.
        return release if data.get("revision") == release.revision else None


@lru_cache(maxsize=1024)
def _revision(content: frozenset[tuple[str, str, str, str]], reference: str) -> str:
    text = json.dumps([sorted(content), reference], separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def read_models(entries: Iterable[Mapping[str, Any]]) -> tuple[ReleasedModel, ...]:
    """Read models as `status.models` and the annotation list them.

    Raises KeyError, TypeError or ValueError.
    """
    return in_order(ReleasedModel.from_dict(entry) for entry in entries)


def in_order(models: Iterable[ReleasedModel]) -> tuple[ReleasedModel, ...]:
    """Sort models by role: the predictor first, as people expect it."""
    roles: Sequence[Role] = list(Role)
    return tuple(sorted(models, key=lambda model: roles.index(model.role)))


def running_release(
    deployment: Manifest | None, status: Manifest, images: Mapping[str, Manifest]
) -> Release | None:
    """Find what runs: the Deployment's annotation, else what the status says of it.

    The status speaks where somebody deleted the Deployment or damaged its annotation, so that it
    comes back even while the model registry is out of reach.
    """
    if deployment is not None:
        text = deployment["metadata"].get("annotations", {}).get(RELEASE, "")
        release = Release.from_json(text)
        if release is not None:
            return release
    return _from_status(status, images)


def _from_status(status: Manifest, images: Mapping[str, Manifest]) -> Release | None:
    reference = (status.get("image") or {}).get("reference")
    if not reference:
        return None
    try:
        models = read_models(status.get("models") or [])
    except (KeyError, TypeError, ValueError):
        return None
    if not models:
        return None
    runtime = status.get("runtime") or {}
    built = next((image for image in images.values() if built_reference(image) == reference), {})
    return Release(
        models=models,
        reference=reference,
        lock=status["image"].get("lock") or "",
        runtime=runtime.get("version") or "",
        profile=runtime.get("profile") or ServingRuntime.AUTO,
        form=runtime.get("form") or "",
        rebuild=built.get("spec", {}).get("rebuild"),
    )


def built_reference(image: Manifest) -> str | None:
    """Give what a ModelImage has become; None while it is not built."""
    reference: str | None = image.get("status", {}).get("image", {}).get("reference")
    return reference
