"""Merges what a user has to say of the pods over what was generated, as kubectl does.

It is Kubernetes' strategic merge: maps are merged, lists whose items have a key are merged item by
item, all others replaced. A null, or `$patch: delete` in an item of a list, removes.
https://github.com/kubernetes/community/blob/main/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from collections.abc import Mapping, Sequence
from typing import Any

from modelops_operator.core.differences import identity, merge_keys, place

DIRECTIVE = "$patch"


class OverlayError(ValueError):
    """The overlay cannot be merged; the message names the field, from the root of the overlay."""


def merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Give `base` with `overlay` merged over it; neither is changed. Raises OverlayError."""
    return _maps(base, overlay, ())


def _maps(
    base: Mapping[str, Any], overlay: Mapping[str, Any], path: tuple[str, ...]
) -> dict[str, Any]:
    directive = overlay.get(DIRECTIVE)
    if directive not in {None, "merge", "replace"}:
        told = f'{place((*path, DIRECTIVE))} must be "merge" or "replace" here (is {directive!r})'
        raise OverlayError(told)
    result = {} if directive == "replace" else dict(base)
    for key, value in overlay.items():
        if key == DIRECTIVE:
            continue
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _value(result.get(key), value, (*path, key))
    return result


def _value(base: Any, overlay: Any, path: tuple[str, ...]) -> Any:
    if isinstance(overlay, Mapping):
        if base is not None and not isinstance(base, Mapping):
            raise OverlayError(f"{place(path)} must not be an object with fields")
        return _maps(base or {}, overlay, path)
    if isinstance(overlay, list | tuple):
        if base is not None and not isinstance(base, list | tuple):
            raise OverlayError(f"{place(path)} must not be a list")
        return _lists(base or (), overlay, path)
    if isinstance(base, Mapping | list | tuple):
        kind = "an object with fields" if isinstance(base, Mapping) else "a list"
        raise OverlayError(f"{place(path)} must be {kind} (is {overlay!r:.40})")
    return overlay


def _lists(base: Sequence[Any], overlay: Sequence[Any], path: tuple[str, ...]) -> list[Any]:
    keys = merge_keys([item for item in overlay if isinstance(item, Mapping)], path)
    if not keys:
        return list(overlay)
    result = {identity(item, keys): item for item in base}
    for item in overlay:
        if not isinstance(item, Mapping) or not isinstance(item.get(keys[0]), str | int):
            raise OverlayError(f"{place(path)} must hold objects, each with {keys[0]}")
        name = identity(item, keys)
        if item.get(DIRECTIVE) == "delete":
            result.pop(name, None)
        else:
            result[name] = _maps(result.get(name, {}), item, (*path, f"[{name[0]}]"))
    return list(result.values())
