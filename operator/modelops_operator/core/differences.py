"""Whether a live object is what we want it to be: nothing is applied when nothing differs.

Two questions are asked. Did *we* change our mind? The hash of the manifest as we generated it
travels in an annotation; it also notices a field that is no longer wanted. Did somebody else
change a field that is ours? Every leaf of the manifest is looked up in the live object, which the
API server returns with defaults added, quantities rewritten and list items of others between ours.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelops_operator.api.quantities import parse_quantity
from modelops_operator.core.state import Manifest

MANIFEST_HASH = "modelops.dev/manifest-hash"

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
"""Lists that server-side apply merges item by item, and what identifies an item."""

QUANTITY_FIELDS = frozenset({"requests", "limits"})
"""Maps whose values are quantities."""


def sealed(manifest: Manifest) -> dict[str, Any]:
    """Give the manifest with its own hash in the annotation `modelops.dev/manifest-hash`."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), MANIFEST_HASH: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def digest(value: object) -> str:
    """Hash a JSON value: 16 hex digits, the same for the same content in any order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differs(desired: Manifest, live: Manifest) -> bool:
    """Whether `live` lacks anything of `desired`, a manifest as `sealed` returns it.

    The annotation with the hash is one of its leaves, so the comparison answers both questions.
    """
    return not _contains(live, desired, ())


def _contains(live: object, desired: object, path: tuple[str, ...]) -> bool:
    if isinstance(desired, Mapping):
        if not desired and live is None:
            return True  # The API server drops empty values.
        return isinstance(live, Mapping) and all(
            _contains(live.get(key), value, (*path, key)) for key, value in desired.items()
        )
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        if not desired and live is None:
            return True
        return isinstance(live, Sequence) and _contains_items(live, desired, path)
    return _same_scalar(live, desired, path)


def _contains_items(live: Sequence[Any], desired: Sequence[Any], path: tuple[str, ...]) -> bool:
    keys = _merge_keys(desired, path)
    if not keys:
        return len(live) == len(desired) and all(
            _contains(*pair, path) for pair in zip(live, desired, strict=True)
        )
    found = {_identity(item, keys): item for item in live if isinstance(item, Mapping)}
    return all(_contains(found.get(_identity(item, keys)), item, path) for item in desired)


def _merge_keys(desired: Sequence[Any], path: tuple[str, ...]) -> tuple[str, ...]:
    """`ports` are keyed differently in a container and in a Service, and not at all elsewhere."""
    field = path[-1]
    if field == "ports" and all("containerPort" in port for port in desired):
        return ("containerPort", "protocol")
    if field == "ports" and path[:1] == ("spec",) and all("targetPort" in port for port in desired):
        return ("port", "protocol")
    return MERGE_KEYS.get(field, ())


def _identity(item: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key, "TCP" if key == "protocol" else None) for key in keys)


def _same_scalar(live: object, desired: object, path: tuple[str, ...]) -> bool:
    if live == desired:
        return isinstance(live, bool) == isinstance(desired, bool)
    if live is None or desired is None:
        return False
    if QUANTITY_FIELDS.intersection(path[-2:-1]) or path[-1] == "sizeLimit":
        return _same_quantity(str(live), str(desired))
    return False


def _same_quantity(live: str, desired: str) -> bool:
    try:
        return parse_quantity(live) == parse_quantity(desired)
    except ValueError:
        return False
