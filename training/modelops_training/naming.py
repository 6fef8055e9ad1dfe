"""The rules of registries for names and aliases, said before anything is logged."""

import re
from collections.abc import Mapping
from typing import Final

import mlflow

from modelops_training.errors import RegistrationError

_NAME: Final = re.compile(r"[^/:\x00-\x1f\x7f]{1,255}")
_CATALOG: Final = re.compile(r"[^\s./:\x00-\x1f\x7f]{1,255}")
_ALIAS: Final = re.compile(r"[\w-]{1,255}", re.ASCII)
# What MLflow takes for a version, and for the newest one.
_RESERVED: Final = re.compile(r"v\d+|latest", re.IGNORECASE)


def on_databricks() -> bool:
    """Say whether runs are logged to a workspace of Databricks."""
    return mlflow.get_tracking_uri().startswith("databricks")


def check(names: Mapping[str, str], alias: str | None, experiment: str | None) -> None:
    """Hold the names of models (by role), alias and experiment to the rules of where they go.

    MLflow's own: no slash and no colon. Unity Catalog's: three names, catalog.schema.model, and no
    spaces. Databricks': experiments are paths. Raises RegistrationError.
    """
    if experiment and on_databricks() and not experiment.startswith("/"):
        raise RegistrationError(
            f"experiment {experiment!r}: on Databricks give its path in the workspace, such as"
            f" /Shared/{experiment}"
        )
    registry = mlflow.get_registry_uri()
    catalog = registry.startswith(("databricks-uc", "uc:"))
    for role, name in names.items():
        where = f"name of the {role} model, {name!r}"
        if not _NAME.fullmatch(name):
            raise RegistrationError(f"{where}: give 1 to 255 characters, no '/' and no ':'")
        parts = name.split(".")
        if catalog and not (len(parts) == 3 and all(map(_CATALOG.fullmatch, parts))):
            raise RegistrationError(
                f"{where}: Unity Catalog at {registry} takes three names, such as"
                " catalog.schema.model, without spaces and slashes"
            )
    if len(set(names.values())) != len(names):
        raise RegistrationError(f"names {dict(names)}: each model needs one of its own")
    if alias is not None and (not _ALIAS.fullmatch(alias) or _RESERVED.fullmatch(alias)):
        raise RegistrationError(
            f"alias {alias!r}: give letters, digits, '_' and '-'; 'latest' and 'v1' mean versions"
        )
