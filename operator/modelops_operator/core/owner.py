"""Whose children are: how they are named, labelled and recognised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelops_operator.core.state import ChildRef, Manifest

DEPLOYMENT_LABEL = "modelops.dev/deployment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The ModelDeployment that the children belong to."""

    name: str
    namespace: str
    uid: str

    @property
    def selector(self) -> dict[str, str]:
        """Labels that select the pods."""
        return {DEPLOYMENT_LABEL: self.name}

    @property
    def labels(self) -> dict[str, str]:
        """Labels of all children and of the pods."""
        return {
            "app.kubernetes.io/name": "model-server",
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/managed-by": "modelops-operator",
            **self.selector,
        }

    def child(self, kind: str) -> ChildRef:
        """Name the child of this kind."""
        return ChildRef(kind, self.name)

    def metadata(self, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Give the metadata of a child."""
        return {
            "name": self.name,
            "namespace": self.namespace,
            "labels": self.labels,
            "annotations": dict(annotations or {}),
            "ownerReferences": [
                {
                    "apiVersion": "modelops.dev/v1alpha1",
                    "kind": "ModelDeployment",
                    "name": self.name,
                    "uid": self.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        }

    def owns(self, live: Manifest) -> bool:
        """Whether the live object is controlled by this very ModelDeployment."""
        return _controller(live).get("uid") == self.uid

    def succeeds_owner_of(self, live: Manifest) -> bool:
        """Whether it belongs to a deleted ModelDeployment of the same name: it is about to go."""
        controller = _controller(live)
        names = (controller.get("kind"), controller.get("name"))
        return names == ("ModelDeployment", self.name) and controller.get("uid") != self.uid


def _controller(live: Manifest) -> Mapping[str, Any]:
    owners = live.get("metadata", {}).get("ownerReferences") or []
    return next((reference for reference in owners if reference.get("controller")), {})
