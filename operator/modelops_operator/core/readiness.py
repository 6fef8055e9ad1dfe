"""What the findings of all steps mean for the object as a whole: Ready, Reconciling, Stalled."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from modelops_operator.api.conditions import Condition, ConditionType
from modelops_operator.api.reasons import Reason
from modelops_operator.core.findings import Finding, Outlook, bounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What answers requests at this moment, whatever is wanted."""

    pods: int
    """Available ones, of any revision."""
    told: str
    """What they serve, for people; empty while nothing was ever released."""
    parked: bool = False
    """There are none because none are wanted."""
    reached: bool = True
    """The generation was ready before: what is under way was not asked for by an edit."""

    @property
    def answers(self) -> bool:
        """Whether there is somebody to answer."""
        return self.pods > 0 or self.parked


def overall(findings: Sequence[Finding], serving: Serving) -> tuple[Condition, ...]:
    """Give Ready, and Reconciling or Stalled where things are not as they should be.

    The first step that is not settled decides. `kubectl wait --for=condition=Ready` looks at Ready
    alone (and at observedGeneration); kstatus, and with it Flux and `helm --wait`, at Reconciling
    and Stalled first. Neither may return while an edit is still being carried out:

    | situation                                              | Ready   | Reconciling | Stalled |
    |--------------------------------------------------------|---------|-------------|---------|
    | all wanted replicas serve the wanted revision          | True    |             |         |
    | zero replicas are wanted, and none are there           | True    |             |         |
    | nothing answers yet, all goes its way                  | False   | True        |         |
    | nothing answers, only a person can mend it             | False   |             | True    |
    | an edit is carried out, the former revision answers    | Unknown | True        |         |
    | the same without an edit: an alias moved, a pod died   | True    | True        |         |
    | only a person can mend it, the former revision answers | True    |             | True    |
    | MLflow is silent, what was asked for serves            | True    |             |         |

    Unknown, since whether the new generation can serve is just what nobody knows yet. With the
    fifth row as True, `kubectl apply && kubectl wait` would return before anything has happened.
    """
    blocker = next((found for found in findings if found.outlook is not Outlook.SETTLED), None)
    if blocker is None:
        return (_answering(serving),)
    mark = {Outlook.UNDERWAY: ConditionType.RECONCILING, Outlook.STUCK: ConditionType.STALLED}
    cause = blocker.decisive
    abnormal = Condition(mark[blocker.outlook], "True", cause.reason, cause.message)
    return (_ready(blocker, serving), abnormal)


def at_rest(reason: str, message: str, serving: Serving) -> Condition:
    """Give Ready for an object that nothing is done for: suspended, or not understood."""
    told = bounded(f"{message}; {_now(serving)}")
    return Condition(ConditionType.READY, "True" if serving.answers else "False", reason, told)


def soonest(findings: Iterable[Finding]) -> timedelta | None:
    """Tell when to look again, if any of the findings asks for it."""
    return min((found.again for found in findings if found.again is not None), default=None)


def _ready(blocker: Finding, serving: Serving) -> Condition:
    cause = blocker.decisive
    if not serving.answers:
        return Condition(ConditionType.READY, "False", cause.reason, cause.message)
    if blocker.outlook is Outlook.STUCK or serving.reached:
        return _answering(serving)
    message = f"{_now(serving)}; {cause.message}"
    return Condition(ConditionType.READY, "Unknown", Reason.PROGRESSING, bounded(message))


def _answering(serving: Serving) -> Condition:
    reason = Reason.SCALED_TO_ZERO if serving.parked else Reason.SERVING
    return Condition(ConditionType.READY, "True", reason, bounded(_now(serving)))


def _now(serving: Serving) -> str:
    if serving.parked:
        return "spec.serving.replicas is 0: nothing serves, as asked for"
    if not serving.pods:
        return "nothing serves"
    return f"{serving.told} serves"
