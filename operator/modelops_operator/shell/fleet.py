"""Which ModelDeployments name which models: whom to look at when a model moves."""

from collections.abc import Collection, Mapping
from typing import Any

from modelops_operator.shell.cache import Manifest
from modelops_operator.shell.queue import Key

Reference = tuple[str, str | None]
"""A registered model, and the alias that is followed; None where a version is pinned."""


class Fleet:
    """The models that the objects' specs name."""

    def __init__(self) -> None:
        self._references: dict[Key, frozenset[Reference]] = {}
        self._keys: dict[str, set[Key]] = {}

    def note(self, key: Key, live: Manifest | None) -> None:
        """Take an object in as it is now; None: it is gone."""
        new = frozenset() if live is None else _references(live)
        old = self._references.pop(key, frozenset())
        if new:
            self._references[key] = new
        for name in {name for name, _ in old} - {name for name, _ in new}:
            self._keys[name].discard(key)
            if not self._keys[name]:
                del self._keys[name]
        for name, _ in new:
            self._keys.setdefault(name, set()).add(key)

    def naming(self, model: str) -> Collection[Key]:
        """Give the objects that name a model."""
        return self._keys.get(model, set())

    def models(self) -> Mapping[str, Collection[str]]:
        """Give every model that is named, with the aliases of it that are followed."""
        found: dict[str, set[str]] = {name: set() for name in self._keys}
        for references in self._references.values():
            for name, alias in references:
                if alias is not None:
                    found[name].add(alias)
        return found


def _references(live: Manifest) -> frozenset[Reference]:
    """Read them leniently: whether the spec is understood is the core's matter."""
    models: Mapping[str, Any] = live.get("spec", {}).get("models") or {}
    named = (model for model in models.values() if isinstance(model, Mapping))
    return frozenset((str(model.get("name")), model.get("alias")) for model in named)
