"""Tells people in a sentence what went wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
from pydantic import ValidationError

from modelops_operator.adapters.registry_errors import RegistryError
from modelops_operator.api.resources import validation_message
from modelops_operator.builder.failures import BuildError, first_failure


@contextmanager
def told(*expected: type[Exception]) -> Iterator[None]:
    """Tell errors of these types in their own words, and those of registries, builds and fields.

    Raises click.ClickException.
    """
    try:
        yield
    except expected as error:
        raise click.ClickException(str(error)) from error
    except ValidationError as error:
        raise click.ClickException(validation_message(error)) from error
    except (BuildError, RegistryError, ExceptionGroup) as error:
        raise click.ClickException(first_failure(error).failure.message) from error
