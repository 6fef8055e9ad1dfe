"""What is known of the cluster: filled by watches and by the sweep, read by the workers.

Watches may be late, repeat themselves or lose an event; so an older version of an object never
replaces a newer one, and the sweep removes what is not there any more.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from modelops_operator.shell.queue import Key

DEPLOYMENT_LABEL: Final = "modelops.dev/deployment"
Manifest = Mapping[str, Any]
_DROPPED: Final = {"managedFields"}


class Cache:
    """Objects by kind, namespace and name."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[Key, Manifest]] = {}
        self._pods: dict[Key, set[Key]] = {}

    def put(self, live: Manifest) -> bool:
        """Keep an object, without what nobody reads; False if it is not newer than the known."""
        key = key_of(live)
        known = self._objects.get(live["kind"], {}).get(key)
        if known is not None and version_of(known) >= version_of(live):
            return False
        metadata = {name: value for name, value in live["metadata"].items() if name not in _DROPPED}
        self._objects.setdefault(live["kind"], {})[key] = {**live, "metadata": metadata}
        owner = owner_of(live)
        if live["kind"] == "Pod" and owner is not None:
            self._pods.setdefault(owner, set()).add(key)
        return True

    def drop(self, kind: str, key: Key) -> Manifest | None:
        """Forget an object that is gone."""
        live = self._objects.get(kind, {}).pop(key, None)
        if live is not None and kind == "Pod" and (owner := owner_of(live)) is not None:
            self._pods.get(owner, set()).discard(key)
        return live

    def get(self, kind: str, key: Key) -> Manifest | None:
        """Give an object, if it is known."""
        return self._objects.get(kind, {}).get(key)

    def all(self, kind: str) -> Mapping[Key, Manifest]:
        """Give all objects of a kind."""
        return self._objects.get(kind, {})

    def pods_of(self, deployment: Key) -> Iterator[Manifest]:
        """Give the pods of a ModelDeployment, by name."""
        pods = self._objects.get("Pod", {})
        for key in sorted(self._pods.get(deployment, ())):
            yield pods[key]

    def prune(self, kind: str, present: Collection[Key], listed_at: int) -> list[Manifest]:
        """Forget what a list did not show, unless it came after that list was made."""
        gone = [
            key
            for key, live in self.all(kind).items()
            if key not in present and version_of(live) <= listed_at
        ]
        return [live for key in gone if (live := self.drop(kind, key)) is not None]


def key_of(live: Manifest) -> Key:
    """Give namespace and name of an object."""
    return live["metadata"]["namespace"], live["metadata"]["name"]


def owner_of(live: Manifest) -> Key | None:
    """Give the ModelDeployment that a child belongs to, as its label says."""
    name = live["metadata"].get("labels", {}).get(DEPLOYMENT_LABEL)
    return None if name is None else (live["metadata"]["namespace"], name)


def version_of(live: Manifest) -> int:
    """Give the resource version, which API servers count upwards (KEP-5504)."""
    return int(live["metadata"]["resourceVersion"])
