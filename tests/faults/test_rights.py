"""R18, and least privilege: the clock jumps, and of the operator's rights none lacks or is unused.

One operator under its own account goes through all that it may have to do. What it has asked for is
read from the API server's audit log, and held against the roles of the chart.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.apiserver import OPERATOR, token_of
from tests.chart.chart import VALUES, granted, render
from tests.faults.proxy import Call, Fault
from tests.faults.stories import MODEL, NAME, Stories, Story, settle
from tests.faults.world import SYSTEM, World, eventually, kubeconfig
from tests.shell.operating import configuration

pytestmark = pytest.mark.contract

HOUR = 3600
ASKED_BY_NOBODY = {("update", "modeldeployments/finalizers")}
"""The API server looks at it where owner references that block deletion are checked."""
APPLY = {"Content-Type": "application/apply-patch+yaml"}
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
SCALED = {"autoscaling": {"maxReplicas": 3}, "resources": {"requests": {"cpu": "1"}}}
CRASHED = {
    "phase": "Running",
    "containerStatuses": [
        {
            "name": "server",
            "image": "i",
            "imageID": "",
            "ready": False,
            "restartCount": 1,
            "state": {"terminated": {"exitCode": 1}},
        }
    ],
}


@pytest.fixture(scope="module")
def rights(world: World) -> set[tuple[str, str]]:
    """Install the chart's roles; give verb and resource of all that the operator's grant."""
    manifests = render(VALUES)
    for manifest in manifests:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if "Role" in kind:
            place = "" if "Cluster" in kind else f"/namespaces/{SYSTEM}"
            path = f"{RBAC}{place}/{kind.lower()}s/{name}?fieldManager=test&force=true"
            world.api.patch(path, content=json.dumps(manifest), headers=APPLY).raise_for_status()
    return granted(manifests, "modelops-operator")


@pytest.fixture(scope="module")
def story(stories: Stories, rights: set[tuple[str, str]]) -> Iterator[Story]:
    """Serve one under the operator's own account."""
    assert rights
    story = stories.new()
    story.world.system = SYSTEM
    kubeconfig(story.kubeconfig, story.proxy.address, token_of(OPERATOR))
    # Other tests' operators have left the lease that this one is to create.
    story.world.api.delete(f"{LEASES}/modelops-operator")
    config = configuration(stories.tracking_uri, namespaces=[story.world.namespace])
    story.operators.append(stories.nursery.start(config, story.kubeconfig))
    story.operators[0].wait_until_ready()
    story.world.create(NAME, MODEL)
    story.world.wait_until_ready(NAME)
    settle(story)
    yield story
    story.end()
    story.world.remove(NAME)


@pytest.mark.parametrize("hours", [1, -1, 0])
def test_a_clock_that_jumps_changes_nothing(story: Story, hours: int) -> None:
    """R18: nothing is written, edits are carried out, and it goes on leading."""
    story.proxy.reset()
    story.operators[0].clock.write_text(str(hours * HOUR))
    settle(story)
    assert story.proxy.written == []
    story.world.edit(NAME, serving={"replicas": 2 + hours})
    story.world.wait_until_ready(NAME)
    settle(story)


def test_none_of_its_rights_lacks_and_none_is_unused(
    story: Story, rights: set[tuple[str, str]], apiserver: Path
) -> None:
    world, api = story.world, story.world.api
    # An autoscaler comes and goes.
    world.edit(NAME, serving=SCALED)
    path = f"/apis/autoscaling/v2/namespaces/{world.namespace}/horizontalpodautoscalers/{NAME}"
    eventually(lambda: api.get(path).is_success)
    world.edit(NAME, serving={"autoscaling": None})
    eventually(lambda: api.get(path).is_error)
    # Its status was written by somebody else a moment ago.
    story.proxy.rule = once(lambda call: call.path.partition("?")[0].endswith("/status"))
    world.edit(NAME, monitoring={"drift": {"alert": "0.3"}})
    world.wait_until_ready(NAME)
    # A pod of it has crashed.
    world.run_pod(NAME, "crashed", CRASHED)
    # Somebody else has asked for the same image, and no watch has told.
    world.register("faults-rights")
    story.proxy.rule = once(lambda call: call.method == "POST" and "modelimages" in call.path)
    models = {"predictor": {"name": "faults-rights", "alias": "candidate"}}
    world.edit(NAME, models=models)
    world.wait_until_ready(NAME)
    # Nobody asks for the former image any more; it is deleted when it is not a new one.
    story.operators[0].clock.write_text(str(HOUR))
    eventually(lambda: ("delete", "modelimages") in asked(apiserver)[0])
    used, denied = asked(apiserver)
    assert denied == set()
    assert sorted(used ^ (rights - ASKED_BY_NOBODY)) == []


def once(wanted: Callable[[Call], bool]) -> Callable[[Call], Fault | None]:
    """Answer to the first such write that somebody was faster."""
    done: list[Call] = []

    def rule(call: Call) -> Fault | None:
        if done or not call.number or not wanted(call):
            return None
        done.append(call)
        return Fault(status=409, body=b'{"message": "somebody was faster"}')

    return rule


def asked(apiserver: Path) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Give verb and resource of what the operator has asked for, and of what it was denied."""
    used, denied = set(), set()
    for line in apiserver.with_name("audit.log").read_text().splitlines():
        event = json.loads(line)
        place = event.get("objectRef")
        if place is None:
            continue
        resource = "/".join(filter(None, (place["resource"], place.get("subresource"))))
        status = event["responseStatus"]["code"]
        used.add((event["verb"], resource))
        if status == 201 and event["verb"] == "patch":
            used.add(("create", resource))  # applying needs both where there was nothing
        if status == 403:
            denied.add((event["verb"], resource))
    return used, denied
