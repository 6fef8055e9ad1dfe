"""What models ask to be installed, read with suspicion.

Accepted are packages by name, in versions that are pinned or bounded above. What leads elsewhere
than to the configured index (addresses, paths, repositories, options of the installer) is refused,
and what is not bounded too, since it means something else every day.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from modelops_operator.api.reasons import Reason
from modelops_operator.builder.failures import BuildError, broken

CONSTRAINTS: Final = "constraints.txt"
FULL: Final = "mlflow"
SKINNY: Final = "mlflow-skinny"
_BOUNDING: Final = {"==", "===", "~=", "<", "<="}
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_WITH_MLFLOW: Final = ("numpy<3", "pandas<4")
"""What loading a model as a function needs and the skinny package does not bring."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What one model asks for, in the form that uv reads."""

    wanted: tuple[str, ...]
    constraints: tuple[str, ...] = ()


def read_requirements(text: str, constraints: str | None, *, model: str) -> Requirements:
    """Read `requirements.txt` of a model and the `constraints.txt` beside it, if there is one.

    `model` says in messages whose they are. Raises BuildError naming the line that is refused.
    """
    wanted: list[str] = []
    limits: list[str] = []
    for number, line in _lines(text):
        where = f"{model}: line {number} of requirements.txt, `{line}`,"
        if line.split() in (["-c", CONSTRAINTS], ["--constraint", CONSTRAINTS]):
            if constraints is None:
                raise _rejected(where, f"names a {CONSTRAINTS} that the model does not have")
            limits += _limits(constraints, model)
            continue
        requirement = _parse(line, where)
        if not any(part.operator in _BOUNDING for part in requirement.specifier):
            raise _rejected(
                where, "has no upper bound; pin it (name==version) or bound it (name<version)"
            )
        wanted += _skinny(requirement)
    return Requirements(tuple(wanted), tuple(limits))


def _limits(text: str, model: str) -> Iterator[str]:
    for number, line in _lines(text):
        yield str(_parse(line, f"{model}: line {number} of {CONSTRAINTS}, `{line}`,"))


def _lines(text: str) -> Iterable[tuple[int, str]]:
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if line := _COMMENT.sub("", raw).strip():
            yield number, line


def _parse(line: str, where: str) -> Requirement:
    if line.startswith("-"):
        raise _rejected(where, "is an option of the installer, and options are not taken")
    if re.search(r"\s--?[a-z]", line) or line.endswith("\\"):
        raise _rejected(where, "has options; hashes and the like come from our own lock")
    if re.match(r"[a-z+]+://|git@|[./~\\]|[A-Za-z]:[\\/]", line):
        raise _rejected(where, "is an address or a path; publish the package on an index")
    try:
        requirement = Requirement(line)
    except InvalidRequirement as error:
        raise _rejected(where, f"is not understood ({str(error).splitlines()[0]})") from error
    if requirement.url:
        raise _rejected(where, "points to an address; publish the package on an index")
    return requirement


def _skinny(requirement: Requirement) -> tuple[str, ...]:
    """Ask for the part of MLflow that loads models instead of the server and all it drags in."""
    if canonicalize_name(requirement.name) != FULL:
        return (str(requirement),)
    requirement.name = SKINNY
    requirement.extras = set()
    return str(requirement), *_WITH_MLFLOW


def _rejected(where: str, why: str) -> BuildError:
    return broken(
        Reason.REQUIREMENT_REJECTED,
        f"{where} {why}. Log the model again with other pip_requirements",
    )
