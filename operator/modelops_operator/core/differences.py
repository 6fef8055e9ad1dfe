"""Whether a live object is what we want it to be: nothing is applied when nothing differs.

Two questions are asked. Did *we* change our mind? The hash of the manifest as we generated it
travels in an annotation; it also notices a field that is no longer wanted. Did somebody else
change a field that is ours? Every leaf of the manifest is looked up in the live object, which the
API server returns with defaults added, quantities rewritten and list items of others between ours.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from modelops_operator.api.quantities import parse_quantity
from modelops_operator.core.state import Manifest

MANIFEST_HASH = "modelops.dev/manifest-hash"

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "schedulingGates": ("name",),
    "resourceClaims": ("name",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
"""Lists that server-side apply merges item by item, and what identifies an item."""

QUANTITY_FIELDS = frozenset({"requests", "limits"})
"""Maps whose values are quantities."""

MEANINGFUL_ZEROS = frozenset({"automountServiceAccountToken", "enableServiceLinks", "replicas"})
"""Fields beside the security contexts' that mean something else when they are absent."""


def sealed(manifest: Manifest) -> dict[str, Any]:
    """Give the manifest with its own hash in the annotation `modelops.dev/manifest-hash`."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), MANIFEST_HASH: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def digest(value: object) -> str:
    """Hash a JSON value: 16 hex digits, the same for the same content in any order of keys."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def differs(desired: Manifest, live: Manifest) -> bool:
    """Whether `live` lacks anything of `desired`, a manifest as `sealed` returns it.

    The annotation with the hash is one of its leaves, so the comparison answers both questions.
    """
    return not _contains(live, desired, ())


def changed_paths(before: Manifest, after: Manifest) -> tuple[str, ...]:
    """Name the fields that differ, such as `spec.containers[server].image`."""
    return tuple(_changed(before, after, ()))


def _changed(before: Any, after: Any, path: tuple[str, ...]) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            yield from _changed(before.get(key), after.get(key), (*path, key))
    elif isinstance(before, Sequence) and isinstance(after, Sequence) and _named(before, after):
        former, present = ({item["name"]: item for item in items} for items in (before, after))
        for name in {**former, **present}:
            yield from _changed(former.get(name), present.get(name), (*path, f"[{name}]"))
    else:
        yield place(path)


def place(path: Sequence[str]) -> str:
    """Write a path as people do: `spec.containers[server].image`."""
    return ".".join(path).replace(".[", "[")


def _named(*lists: Sequence[Any]) -> bool:
    return all(isinstance(item, Mapping) and "name" in item for items in lists for item in items)


def _contains(live: object, desired: object, path: tuple[str, ...]) -> bool:
    # Every pass compares every leaf of every child: to ask for Mapping would take twice the time.
    if isinstance(desired, dict):
        if not desired and live is None:
            return True  # The API server drops empty values.
        return isinstance(live, dict) and all(
            _same_text(live.get(key), value) or _contains(live.get(key), value, (*path, key))
            for key, value in desired.items()
        )
    if isinstance(desired, list | tuple):
        if not desired and live is None:
            return True
        return isinstance(live, list | tuple) and _contains_items(live, desired, path)
    return _same_scalar(live, desired, path)


def _same_text(live: object, desired: object) -> bool:
    return live.__class__ is str and live == desired


def _contains_items(live: Sequence[Any], desired: Sequence[Any], path: tuple[str, ...]) -> bool:
    keys = merge_keys(desired, path)
    if not keys:
        return len(live) == len(desired) and all(
            _contains(*pair, path) for pair in zip(live, desired, strict=True)
        )
    found = {identity(item, keys): item for item in live if isinstance(item, dict)}
    return all(_contains(found.get(identity(item, keys)), item, path) for item in desired)


def merge_keys(desired: Sequence[Any], path: tuple[str, ...]) -> tuple[str, ...]:
    """Tell what identifies the items of the list at `path`; nothing where it is replaced whole.

    `ports` are keyed differently in a container and in a Service, and not at all elsewhere.
    """
    field = path[-1]
    if field == "ports" and all("containerPort" in port for port in desired):
        return ("containerPort", "protocol")
    if field == "ports" and path[:1] == ("spec",) and all("targetPort" in port for port in desired):
        return ("port", "protocol")
    return MERGE_KEYS.get(field, ())


def identity(item: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    """Give what identifies an item of a list."""
    return tuple(item.get(key, "TCP" if key == "protocol" else None) for key in keys)


def _same_scalar(live: object, desired: object, path: tuple[str, ...]) -> bool:
    if live == desired:
        return isinstance(live, bool) == isinstance(desired, bool)
    if live is None or desired is None:
        return desired in ("", 0) and _may_be_absent(path)
    if QUANTITY_FIELDS.intersection(path[-2:-1]) or path[-1] == "sizeLimit":
        return _same_quantity(str(live), str(desired))
    return False


def _may_be_absent(path: tuple[str, ...]) -> bool:
    """Tell whether the API server may drop the field where it is false, 0 or empty.

    What it keeps instead is as good as absent, but for fields whose absence means something else.
    """
    return "securityContext" not in path and path[-1] not in MEANINGFUL_ZEROS


def _same_quantity(live: str, desired: str) -> bool:
    try:
        return parse_quantity(live) == parse_quantity(desired)
    except ValueError:
        return False
