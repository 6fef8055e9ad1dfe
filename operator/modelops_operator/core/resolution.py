"""Which model versions are wanted: what the registry tells about the models of the spec."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol

from modelops_operator.api.conditions import Condition, ConditionType
from modelops_operator.api.facts import Failure, ModelVersion, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.core.findings import Finding, Outlook
from modelops_operator.core.release import Release, ReleasedModel, in_order


class Reference(Protocol):
    """How a spec names a model: by alias or by version."""

    @property
    def name(self) -> str:
        """The registered model."""

    @property
    def alias(self) -> str | None:
        """An alias, where the version is to follow it."""

    @property
    def version(self) -> str | None:
        """A version, where it is pinned."""


References = Mapping[Role, Reference]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The release that the spec asks for, as far as it is known."""

    finding: Finding
    versions: Mapping[Role, ModelVersion] | None = None
    """None while there is no release to go for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """What the checks look at."""

    references: References
    found: Mapping[Role, ModelVersion | Failure]
    denied: Mapping[Role, Failure]
    """The models that this namespace may not deploy, whatever the registry says of them."""
    settled: bool
    """What runs was released for these very references: there is nothing to do but to follow."""
    waited: timedelta | None
    """How long the aliases have been leading to different trainings, as far as was noticed."""
    settle: timedelta
    """How long that is nothing to speak of: aliases move one after another."""

    @property
    def failures(self) -> Mapping[Role, Failure]:
        """The models that could not be resolved."""
        wanted = ((role, self.found.get(role)) for role in self.references)
        return {role: found for role, found in wanted if isinstance(found, Failure)}

    @property
    def versions(self) -> Mapping[Role, ModelVersion]:
        """The models that could be."""
        wanted = ((role, self.found.get(role)) for role in self.references)
        return {role: found for role, found in wanted if isinstance(found, ModelVersion)}


def resolve(inquiry: Inquiry) -> Resolution:
    """Go through the checks; where none objects, the release is known."""
    for check in CHECKS:
        finding = check(inquiry)
        if finding is not None:
            return Resolution(finding=finding)
    told = ", ".join(_told(inquiry, role) for role in inquiry.versions)
    condition = Condition(ConditionType.MODELS_RESOLVED, "True", Reason.RESOLVED, told)
    finding = Finding(condition=condition, outlook=Outlook.SETTLED)
    return Resolution(finding=finding, versions=inquiry.versions)


def released_models(
    references: References, versions: Mapping[Role, ModelVersion]
) -> tuple[ReleasedModel, ...]:
    """Write down which versions the references led to."""
    return in_order(
        ReleasedModel(
            role=role,
            name=version.name,
            alias=references[role].alias,
            version=version.version,
            run_id=version.run_id,
        )
        for role, version in versions.items()
    )


def serves_references(release: Release, references: References) -> bool:
    """Whether the release was made for these references, wherever aliases lead by now."""
    served = {model.role: model for model in release.models}
    return served.keys() == references.keys() and all(
        _same_reference(served[role], reference) for role, reference in references.items()
    )


def _same_reference(model: ReleasedModel, reference: Reference) -> bool:
    if reference.alias is not None:
        return (model.name, model.alias) == (reference.name, reference.alias)
    return (model.name, model.version) == (reference.name, reference.version)


def _denied(inquiry: Inquiry) -> Finding | None:
    """Heed the policy. What the registry says of such a model is not told."""
    if not inquiry.denied:
        return None
    return _finding("False", _reason(inquiry.denied), _joined(inquiry.denied), Outlook.STUCK)


def _refused(inquiry: Inquiry) -> Finding | None:
    """Something only a person can mend."""
    failures = {role: fault for role, fault in inquiry.failures.items() if fault.permanent}
    if not failures:
        return None
    return _finding("False", _reason(failures), _joined(failures), Outlook.STUCK)


def _unreachable(inquiry: Inquiry) -> Finding | None:
    """Something that passes. What runs was released for the same references: nothing to do."""
    if not inquiry.failures:
        return None
    outlook = Outlook.SETTLED if inquiry.settled else Outlook.UNDERWAY
    return _finding("Unknown", _reason(inquiry.failures), _joined(inquiry.failures), outlook)


def _unasked(inquiry: Inquiry) -> Finding | None:
    """Nobody has asked the registry yet, as after a start of the operator."""
    missing = [role for role in inquiry.references if role not in inquiry.found]
    if not missing:
        return None
    outlook = Outlook.SETTLED if inquiry.settled else Outlook.UNDERWAY
    names = ", ".join(inquiry.references[role].name for role in missing)
    return _finding("Unknown", Reason.RESOLVING, f"asking the model registry for {names}", outlook)


def _torn(inquiry: Inquiry) -> Finding | None:
    """Aliases lead to versions of different trainings, as they do while somebody moves them.

    Pinned versions and models without a training's tag are the user's own choice.
    """
    trainings = {
        role: version.train_id
        for role, version in inquiry.versions.items()
        if inquiry.references[role].alias is not None and version.train_id is not None
    }
    if len(set(trainings.values())) < 2:
        return None
    told = ", ".join(
        f"{_told(inquiry, role)} of training {train_id}" for role, train_id in trainings.items()
    )
    message = (
        f"the aliases lead to versions of different trainings: {told}. Waiting for the rest to"
        " follow; move the other aliases too, or pin versions to release this combination"
    )
    left = inquiry.settle - (inquiry.waited or timedelta())
    lasting = left <= timedelta()
    return _finding(
        "False" if lasting else "Unknown",
        Reason.WAITING_FOR_RELEASE,
        message,
        Outlook.UNDERWAY,
        again=None if lasting else left,
    )


Check = Callable[[Inquiry], Finding | None]

CHECKS: tuple[Check, ...] = (
    _denied,  # nobody learns of a model by naming it
    _refused,  # a missing model is told even while another one's registry is silent
    _unreachable,
    _unasked,
    _torn,  # last: it compares versions, so all must be known
)


def _told(inquiry: Inquiry, role: Role) -> str:
    version = inquiry.versions[role]
    alias = inquiry.references[role].alias
    return f"{role} {version.name} {version.version}" + (f" (alias {alias})" if alias else "")


def _reason(failures: Mapping[Role, Failure]) -> str:
    return next(iter(failures.values())).reason


def _joined(failures: Mapping[Role, Failure]) -> str:
    return "; ".join(f"{role}: {failure.message}" for role, failure in failures.items())


def _finding(
    status: Literal["True", "False", "Unknown"],
    reason: str,
    message: str,
    outlook: Outlook,
    again: timedelta | None = None,
) -> Finding:
    condition = Condition(ConditionType.MODELS_RESOLVED, status, reason, message)
    return Finding(condition=condition, outlook=outlook, again=again)
