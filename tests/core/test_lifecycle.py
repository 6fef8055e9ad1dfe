"""R4, R5, R8 and R9 on the pure core: from one state at rest to the next, by good and bad edits.

What is interrupted on the way is in test_histories.py, R6 and R7 field by field in
test_pod_template.py.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from modelops_operator.api.facts import Failure, Role
from modelops_operator.core.state import ChildRef

from tests.core.simulation import (
    AUTOSCALER,
    DEPLOYMENT,
    Cluster,
    manifest,
    revision_of,
    version,
)

pytestmark = pytest.mark.unit

MOST_STATUSES = 4
"""Asked for, built, rolled out, ready."""
FIELDS: Mapping[str, tuple[Any, ...]] = {
    "replicas": (1, 3, None),
    "autoscaling": ({"minReplicas": 2, "maxReplicas": 5}, None),
    "runtime": ("Fast", "Pyfunc", None),
    "podLabels": ({"team": "census"}, {"team": "labour"}, None),
    "podTemplate": ({"spec": {"dnsPolicy": "Default"}}, None),
    "nodeSelector": ({"pool": "models"}, None),
}
"""Of `spec.serving`, what each may be; None: left out."""
REFUSED = (
    {"spec": {"hostNetwork": True}},
    {"spec": {"containers": [{"name": "server", "image": "example/other"}]}},
)
"""Pod templates that the operator refuses."""
BROKEN_BUILD, CRASHING, MISSING = "30", "31", "32"
"""Versions of the predictor that come to nothing."""
NOT_THERE = Failure(reason="ModelNotFound", message="no such version", permanent=True)


class Lifecycle(RuleBasedStateMachine):
    """An object that comes to rest after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(broken_builds={BROKEN_BUILD}, broken_versions={CRASHING})
        self.cluster.converge()

    @rule(edit=st.sampled_from([(name, value) for name, some in FIELDS.items() for value in some]))
    def change(self, edit: tuple[str, Any]) -> None:
        """R9: each child that an edit concerns is written once."""
        before = self._specs()
        self._serve(*edit)
        self.cluster.written.clear()
        self.cluster.converge()
        written, after = self.cluster.written, self._specs()
        assert written.pop("status", 0) <= MOST_STATUSES
        assert written.pop("ModelImage", 0) <= 1
        concerned = {
            ref for ref in before.keys() | after.keys() if before.get(ref) != after.get(ref)
        }
        kinds = {ref.kind for ref in concerned}
        if edit[0] == "autoscaling":  # the number of replicas changes its owner
            kinds |= {"Deployment", "handover"}
        assert written.keys() <= kinds
        assert set(written.values()) <= {1}
        assert self.cluster.conditions["Ready"] == ("True", "Serving")

    @rule(template=st.sampled_from(REFUSED))
    def overreach(self, template: Mapping[str, Any]) -> None:
        """R5: what the pods may not be is refused."""
        self._break_and_mend(lambda: self._serve("podTemplate", template))

    @rule(number=st.sampled_from([BROKEN_BUILD, CRASHING, MISSING]))
    def release(self, number: str) -> None:
        """R5: a version that cannot be had, built or started."""

        def pin(spec: dict[str, Any]) -> None:
            spec["models"] = {"predictor": {"name": "employment", "version": number}}

        def break_it() -> None:
            self.cluster.edit(pin)
            found = NOT_THERE if number == MISSING else version(Role.PREDICTOR, number)
            self.cluster.registry = {Role.PREDICTOR: found}

        self._break_and_mend(break_it)

    @invariant()
    def it_rests(self) -> None:
        """R8: once all is as it should be, nothing is written."""
        plan = self.cluster.decide()
        assert (plan.image, plan.handover, plan.apply, plan.delete) == (None, None, (), ())
        assert plan.status == self.cluster.status

    def teardown(self) -> None:
        """R4: however it came here, it ends where the last spec alone would."""
        direct = Cluster(object=manifest(**copy.deepcopy(self.cluster.object["spec"])))
        direct.converge()
        assert self._specs() == self._specs(direct)

    def _break_and_mend(self, break_it: Callable[[], None]) -> None:
        def revert(edited: dict[str, Any]) -> None:
            edited.clear()
            edited.update(spec)

        cluster, before = self.cluster, self._specs()
        spec, registry = copy.deepcopy(cluster.object["spec"]), dict(cluster.registry)
        revision = revision_of(cluster.children[DEPLOYMENT])
        break_it()
        cluster.converge()
        assert cluster.conditions["Stalled"][0] == "True"
        assert [pod for pod in cluster.pods if pod.ready and pod.revision == revision]
        cluster.registry = registry
        cluster.edit(revert)
        cluster.converge()
        assert "Stalled" not in cluster.conditions
        assert cluster.conditions["Ready"] == ("True", "Serving")
        assert self._specs() == before

    def _serve(self, name: str, value: Any) -> None:
        def edit(spec: dict[str, Any]) -> None:
            spec["serving"].pop(name, None)
            if value is not None:
                spec["serving"][name] = value

        self.cluster.edit(edit)

    def _specs(self, cluster: Cluster | None = None) -> Mapping[ChildRef, Any]:
        """Give the children's specs, without a number of replicas that is an autoscaler's."""
        children = (cluster or self.cluster).children
        specs = {ref: copy.deepcopy(live.get("spec", {})) for ref, live in children.items()}
        if AUTOSCALER in specs:
            del specs[DEPLOYMENT]["replicas"]
        return specs


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(stateful_step_count=5)
