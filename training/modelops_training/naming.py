"""The rules of registries for names and aliases, said before anything is logged."""

import re
from collections.abc import Mapping
from typing import Final

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils import validation

from modelops_training.errors import RegistrationError

# One rule of Unity Catalog's for each of the three names.
_CATALOG: Final = re.compile(r"[^\s./\x00-\x1f\x7f]{1,255}")


def check(names: Mapping[str, str], alias: str | None) -> None:
    """Hold the models' names and the alias to the registry's rules. Raises RegistrationError."""
    registry = mlflow.get_registry_uri()
    catalog = registry.startswith(("databricks-uc", "uc:"))
    for role, name in names.items():
        try:
            validation._validate_model_name(name)  # noqa: SLF001  # what its clients check as well
        except MlflowException as error:
            raise RegistrationError(
                f"name of the {role} model, {name!r}: {error.message}"
            ) from error
        parts = name.split(".")
        if catalog and (len(parts) != 3 or not all(map(_CATALOG.fullmatch, parts))):
            raise RegistrationError(
                f"name of the {role} model, {name!r}: Unity Catalog at {registry} takes three"
                " names, such as catalog.schema.model, without spaces and slashes"
            )
    if len(set(names.values())) != len(names):
        raise RegistrationError(f"names {dict(names)}: each model needs one of its own")
    if alias is not None:
        try:
            validation._validate_model_alias_name(  # type: ignore[no-untyped-call]  # noqa: SLF001
                alias
            )
        except MlflowException as error:
            raise RegistrationError(f"alias {alias!r}: {error.message}") from error
