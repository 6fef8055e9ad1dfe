"""Finds the model versions that are named on the command line."""

from modelops_operator.adapters.mlflow import MlflowRegistry
from modelops_operator.api.facts import ModelVersion
from modelops_operator.api.reasons import Reason
from modelops_operator.builder.failures import broken
from modelops_operator.cli.naming import ModelArgument


async def version_of(registry: MlflowRegistry, argument: ModelArgument) -> ModelVersion:
    """Find the version that is meant. Raises ModelRegistryError, BuildError."""
    version = argument.version
    if argument.alias:
        aliases = await registry.model(argument.name)
        if argument.alias not in aliases:
            there = ", ".join(sorted(aliases)) or "none"
            raise broken(
                Reason.ALIAS_NOT_FOUND,
                f"model {argument.name!r} has no alias {argument.alias!r}, only: {there}",
            )
        version = aliases[argument.alias]
    return await registry.version(argument.name, version)
