"""Whether the image that is to run is signed; one that is not does not replace what runs."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from modelops_operator.api.conditions import Condition, ConditionType
from modelops_operator.api.config import OperatorConfig, VerificationMode
from modelops_operator.api.facts import Failure, Signed
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ModelDeploymentSpec
from modelops_operator.core.findings import Finding, Outlook, bounded
from modelops_operator.core.scene import Scene
from modelops_operator.core.target import Target

AGAIN = timedelta(seconds=30)
"""How often to ask for a signature that was not to be had: no watch tells when it is."""
_UNSIGNED = frozenset({Reason.SIGNATURE_MISSING, Reason.SIGNATURE_UNTRUSTED})
"""Failures that say that no trusted key has signed; after all others it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What may run now, and what was found on the way."""

    target: Target
    findings: tuple[Finding, ...] = ()
    """None where nothing is to be verified."""
    ask: tuple[str, ...] = ()
    """Images whose signature is to be looked for."""


def verified(
    scene: Scene, spec: ModelDeploymentSpec, target: Target, config: OperatorConfig
) -> Verified:
    """Let only what is signed be rolled out, where the configuration asks for that."""
    if config.verification.mode is VerificationMode.DISABLED:
        return Verified(target=target)
    if target.release is None:
        return Verified(target=target, findings=(_waiting(),))
    reference = target.release.reference
    answer = scene.observed.signatures.get(reference)
    if isinstance(answer, Signed):
        return Verified(target=target, findings=(_signed(reference, answer),))
    deployed = scene.deployed  # What the status alone says is to be proved first.
    if deployed is not None and deployed.reference == reference:
        finding = _remembered(scene, reference, answer) or _running(reference, answer)
        return Verified(target=target, findings=(finding,), ask=(reference,))
    held = replace(target, release=deployed, frozen=not scene.serves(spec))
    return Verified(target=held, findings=(_held(reference, answer),), ask=(reference,))


def _waiting() -> Finding:
    message = "there is no image yet whose signature could be verified"
    return _finding("Unknown", Reason.WAITING_FOR_IMAGE, message, Outlook.UNDERWAY)


def _signed(reference: str, answer: Signed) -> Finding:
    message = f"{reference} is signed by the key {answer.key}"
    return _finding("True", Reason.SIGNATURE_VERIFIED, message, Outlook.SETTLED)


def _held(reference: str, answer: Failure | None) -> Finding:
    """Tell of an image that waits for its signature."""
    if answer is None:
        return _finding("Unknown", Reason.VERIFYING, _asking(reference), Outlook.UNDERWAY)
    outlook = Outlook.STUCK if answer.permanent else Outlook.UNDERWAY
    message = f"not rolled out: {answer.message}"
    return replace(_finding(_status(answer), answer.reason, message, outlook), again=AGAIN)


def _running(reference: str, answer: Failure | None) -> Finding:
    """Tell of an image that runs already: nothing waits for its signature."""
    if answer is None:
        return _finding("Unknown", Reason.VERIFYING, _asking(reference), Outlook.SETTLED)
    message = f"it goes on running, but {answer.message}"
    finding = _finding(_status(answer), answer.reason, message, Outlook.SETTLED)
    return replace(finding, again=AGAIN)


def _remembered(scene: Scene, reference: str, answer: Failure | None) -> Finding | None:
    """Keep to what was found before the operator was started anew, until it is known again."""
    former = scene.former(ConditionType.IMAGE_VERIFIED)
    if answer is not None or reference not in former.get("message", ""):
        return None
    return _finding(former["status"], former["reason"], former["message"], Outlook.SETTLED)


def _status(answer: Failure) -> Literal["False", "Unknown"]:
    return "False" if answer.reason in _UNSIGNED else "Unknown"


def _asking(reference: str) -> str:
    return f"the registry is asked for the signature of {reference}"


def _finding(
    status: Literal["True", "False", "Unknown"], reason: str, message: str, outlook: Outlook
) -> Finding:
    condition = Condition(ConditionType.IMAGE_VERIFIED, status, reason, bounded(message))
    return Finding(condition=condition, outlook=outlook)
