"""Which namespaces may deploy which models: the operator can read every model, its users may not.

The chart makes a ValidatingAdmissionPolicy of the same configuration, which refuses what is new at
once. This here also covers what was there before, and clusters without that policy.
"""

from modelops_operator.api.config import PolicyConfig
from modelops_operator.api.facts import Failure, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.core.resolution import References


def denied(namespace: str, references: References, policy: PolicyConfig) -> dict[Role, Failure]:
    """Say of which of the models the policy keeps this namespace off."""
    return {
        role: _failure(namespace, reference.name, policy)
        for role, reference in references.items()
        if not policy.allows(namespace, reference.name)
    }


def _failure(namespace: str, model: str, policy: PolicyConfig) -> Failure:
    allowed = ", ".join(policy.allowed_in(namespace)) or "none"
    message = (
        f"the namespace {namespace} may not deploy the model {model!r} (it may: {allowed}): choose"
        " one of those, or have it added to policy.models in the operator's configuration"
    )
    return Failure(reason=Reason.POLICY_DENIED, message=message, permanent=True)
