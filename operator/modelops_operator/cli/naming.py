"""How models are named on the command line."""

from dataclasses import dataclass
from typing import Final

from modelops_operator.api.facts import Role

DETECTORS: Final = (Role.DRIFT, Role.OUTLIER)


@dataclass(frozen=True, slots=True)
class ModelArgument:
    """A model version as people name it on the command line."""

    name: str
    version: str = ""
    alias: str = ""
    role: Role | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelArgument":
        """Read `[ROLE=]NAME@ALIAS` or `[ROLE=]NAME/VERSION`, as behind MLflow's `models:/`.

        Raises ValueError when it is neither.
        """
        role, equals, rest = text.rpartition("=")
        if equals and role not in set(Role):
            raise ValueError(f"{role!r} is not a role: take one of {', '.join(Role)}")
        address = rest.removeprefix("models:/")
        name, at, alias = address.partition("@")
        version = ""
        if not at:
            name, _, version = address.rpartition("/")
        if not name or not (alias or version):
            raise ValueError(f"{text!r} is neither NAME@ALIAS nor NAME/VERSION")
        return cls(name, version, alias, Role(role) if equals else None)
