"""What is known of the cluster: filled by watches and by the sweep, read by the workers.

Watches may be late, repeat themselves or lose an event. So an older version of an object never
replaces a newer one, one that is known to be gone does not come back through an older list, and
the sweep removes what is not there any more.

Objects are kept packed, and unpacked for whoever asks.
"""

import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, overload

from modelops_operator.core.history import ASKING, holds
from modelops_operator.core.owner import DEPLOYMENT_LABEL
from modelops_operator.core.packing import Family, unpack_alike
from modelops_operator.shell.queue import Key

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
Manifest = Mapping[str, Any]
OPEN: Final = frozenset({"ModelImage"})
"""Kinds that are not packed: every pass looks through them all."""
IDLE: Final = frozenset({"ServiceAccount", "NetworkPolicy", "Service", "PodDisruptionBudget"})
"""Kinds of which nobody reads the status."""


class _Kept:
    """An object as it is kept."""

    __slots__ = ("_content", "_sample", "version")

    def __init__(self, live: Manifest, family: Family | None) -> None:
        self.version = version_of(live)
        self._content: Manifest | bytes = trimmed(live)
        self._sample = b""
        if family is not None:
            self._content, self._sample = family.pack(self._content)

    @property
    def live(self) -> Manifest:
        """The object itself."""
        content = self._content
        return unpack_alike(content, self._sample) if isinstance(content, bytes) else content


class Cache:
    """Objects by kind, namespace and name."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[Key, _Kept]] = {}
        self._families: defaultdict[str, Family] = defaultdict(Family)
        """By kind."""
        self._pods: dict[Key, set[Key]] = {}
        self._gone: dict[tuple[str, Key], int] = {}
        """Version at which an object went, until a whole sweep has passed."""
        self.changes = 0
        """Objects that were kept or dropped so far: while it is the same, so is the cache."""

    def put(self, live: Manifest) -> bool:
        """Keep an object, without what nobody reads; False if that is as it was known."""
        kind, key, objects = live["kind"], key_of(live), self._kept(live["kind"])
        if version_of(live) <= max(self._gone.get((kind, key), 0), self.version(kind, key)):
            return False
        family = None if kind in OPEN else self._families[kind]
        known, objects[key] = objects.get(key), _Kept(live, family)
        self.changes += 1
        if known is not None and kind not in OPEN and _same(known.live, objects[key].live):
            return False
        owner = owner_of(live)
        if kind == "Pod" and owner is not None:
            self._pods.setdefault(owner, set()).add(key)
        return True

    def drop(self, live: Manifest) -> bool:
        """Forget an object that is gone; False if it was not known, or is there anew."""
        kind, key, version = live["kind"], key_of(live), version_of(live)
        if self.version(kind, key) > version:
            return False
        self._gone[kind, key] = max(version, self._gone.get((kind, key), 0))
        known = self.get(kind, key)
        if known is None:
            return False
        del self._objects[kind][key]
        self.changes += 1
        owner = owner_of(known)
        if kind == "Pod" and owner is not None:
            self._pods[owner].discard(key)
            if not self._pods[owner]:
                del self._pods[owner]
        return True

    def get(self, kind: str, key: Key) -> Manifest | None:
        """Give an object, if it is known."""
        kept = self._kept(kind).get(key)
        return None if kept is None else kept.live

    def version(self, kind: str, key: Key) -> int:
        """Give the version of an object, which is cheaper than the object; 0: it is not known."""
        kept = self._kept(kind).get(key)
        return 0 if kept is None else kept.version

    def keys(self, kind: str) -> Sequence[Key]:
        """Name the objects of a kind."""
        return tuple(self._kept(kind))

    def all(self, kind: str) -> Iterator[Manifest]:
        """Give all objects of a kind."""
        for kept in tuple(self._kept(kind).values()):
            yield kept.live

    def within(self, kind: str, namespace: str) -> Mapping[str, Manifest]:
        """Give the objects of a kind in one namespace by name, as they are known at any moment."""
        return _Namespace(self._kept(kind), namespace)

    def pods_of(self, deployment: Key) -> Sequence[Manifest]:
        """Give the pods of a ModelDeployment by name, as they are known at any moment."""
        return _Pods(self._kept("Pod"), self._pods, deployment)

    def pod_versions(self, deployment: Key) -> tuple[int, ...]:
        """Give the versions of its pods, which are cheaper than the pods."""
        return tuple(self.version("Pod", pod) for pod in sorted(self._pods.get(deployment, ())))

    def missing(self, kind: str, present: Collection[Key], listed_after: int) -> list[Manifest]:
        """Give what a list did not show, but for what is newer than the list."""
        return [
            kept.live
            for key, kept in self._kept(kind).items()
            if key not in present and kept.version <= listed_after
        ]

    def departed(self) -> Mapping[tuple[str, Key], int]:
        """Give what is remembered to be gone."""
        return dict(self._gone)

    def forget_departed(self, departed: Mapping[tuple[str, Key], int]) -> None:
        """Forget what went before the last sweep: no list under way can bring it back."""
        for place, version in departed.items():
            if self._gone.get(place) == version:
                del self._gone[place]

    def _kept(self, kind: str) -> dict[Key, _Kept]:
        return self._objects.setdefault(kind, {})


class _Namespace(Mapping[str, Manifest]):
    """A view: copies of what every pass might look at would take most of its time."""

    def __init__(self, objects: Mapping[Key, _Kept], namespace: str) -> None:
        self._objects = objects
        self._namespace = namespace

    def __getitem__(self, name: str) -> Manifest:
        return self._objects[self._namespace, name].live

    def __iter__(self) -> Iterator[str]:
        return (name for namespace, name in self._objects if namespace == self._namespace)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Pods(Sequence[Manifest]):
    """A view, too: those of a whole fleet, unpacked at once, would take more than all the rest."""

    def __init__(
        self, pods: Mapping[Key, _Kept], owned: Mapping[Key, Collection[Key]], owner: Key
    ) -> None:
        self._pods = pods
        self._owned = owned
        self._owner = owner

    def __len__(self) -> int:
        return len(self._owned.get(self._owner, ()))

    def __iter__(self) -> Iterator[Manifest]:
        kept = [self._pods[key] for key in self._names()]
        return (each.live for each in kept)

    @overload
    def __getitem__(self, place: int) -> Manifest: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Manifest]: ...

    def __getitem__(self, place: int | slice) -> Manifest | Sequence[Manifest]:
        if isinstance(place, slice):
            return [self._pods[key].live for key in self._names()[place]]
        return self._pods[self._names()[place]].live

    def _names(self) -> list[Key]:
        return sorted(self._owned.get(self._owner, ()))


def trimmed(live: Manifest) -> Manifest:
    """Drop what nobody reads: most of the memory that objects take."""
    metadata = {name: value for name, value in live["metadata"].items() if name != "managedFields"}
    annotations = metadata.get("annotations", {})
    if LAST_APPLIED in annotations:
        metadata["annotations"] = {
            name: value for name, value in annotations.items() if name != LAST_APPLIED
        }
    if live["kind"] == "ModelDeployment" and (asking := _asking(live)):
        metadata["managedFields"] = asking
    kept = {**live, "metadata": metadata}
    if live["kind"] in IDLE:
        kept.pop("status", None)
    if live["kind"] == "Pod":
        kept.pop("spec", None)
        kept["status"] = _progress(live.get("status") or {})
    return kept


def _progress(status: Manifest) -> dict[str, Any]:
    """Keep of a pod's status what keeps it from serving, or tells that it serves."""
    kept = {name: status[name] for name in ("phase", "containerStatuses") if name in status}
    told = {("Ready", "True"), ("Ready", "False"), ("PodScheduled", "False")}
    conditions = [
        one for one in status.get("conditions") or () if (one["type"], one["status"]) in told
    ]
    return {**kept, "conditions": conditions} if conditions else kept


def _same(one: Manifest, other: Manifest) -> bool:
    """Tell whether two versions of an object differ in nothing that anybody reads."""
    return _timeless(one) == _timeless(other)


def _timeless(live: Manifest) -> Manifest:
    metadata = {key: value for key, value in live["metadata"].items() if key != "resourceVersion"}
    return {**live, "metadata": metadata}


def _asking(live: Manifest) -> list[dict[str, Any]]:
    """Keep of the managed fields who has asked for a revision, see `core.history`."""
    return [
        {"manager": entry.get("manager"), "time": entry.get("time"), "fieldsV1": asked}
        for entry in live["metadata"].get("managedFields") or ()
        if "subresource" not in entry and (asked := _within(entry.get("fieldsV1") or {}, ASKING))
    ]


def _within(fields: Mapping[str, Any], paths: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Keep what the paths lead to, and the way there."""
    kept: dict[str, Any] = {}
    for path in paths:
        if holds(fields, path):
            inner = kept
            for step in path:
                inner = inner.setdefault(step, {})
    return kept


def key_of(live: Manifest) -> Key:
    """Give namespace and name of an object."""
    # An object and its children share their names: each is kept once.
    return sys.intern(live["metadata"]["namespace"]), sys.intern(live["metadata"]["name"])


def owner_of(live: Manifest) -> Key | None:
    """Give the ModelDeployment that a child belongs to, as its label says."""
    name = live["metadata"].get("labels", {}).get(DEPLOYMENT_LABEL)
    return None if name is None else (live["metadata"]["namespace"], name)


def version_of(live: Manifest) -> int:
    """Give the resource version: API servers count it upwards for all objects of a kind.

    https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/5504-comparable-resource-version
    """
    return int(live["metadata"]["resourceVersion"])
