"""`python -m demo up` tells the whole story on a real cluster; `down` removes it."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from modelops_training.data import records

from demo.ground import ROOT, SANDBOX, DemoError, Ground, find_ground, run
from demo.platform import install, push_images, train, uninstall, values
from demo.proxy import proxied
from demo.traffic import Tally, send, steady

NAMESPACE: Final = "staging"
NAME: Final = "employment"
MANIFEST: Final = ROOT / "demo" / "modeldeployment.yaml"
LATER: Final = (2016, 2017, 2018)
ROWS: Final = 12_000
SECONDS: Final = 45.0
RESTRICTED: Final = "pod-security.kubernetes.io/enforce=restricted"


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("command", choices=("up", "down"))
    options = parser.parse_args()
    began = time.monotonic()
    try:
        {"up": up, "down": down}[options.command]()
    except DemoError as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    say(f"\n{options.command} took {time.monotonic() - began:.0f} s")
    return 0


def up() -> None:
    """Tell the story.

    Raises:
        DemoError: a step did not end as it should.
    """
    with step("A platform: Kubernetes, a registry, MLflow"):
        ground = find_ground()
    with step("Images of the operator and the builder, made without a container engine"):
        images = push_images(ground)
    with step("The operator, installed by its chart"):
        install(ground, values(ground, images))
    with step("Three models, trained on 2015 and registered"):
        say(train(ground, NAME))
    with step("One object: kubectl apply -f demo/modeldeployment.yaml"):
        make_namespace(ground, NAMESPACE)
        ground.kubectl("apply", "-f", str(MANIFEST))
        wait_ready(ground)
    show(ground)
    with proxied(ground, NAMESPACE, NAME) as url:
        with step(f"Traffic of {LATER[0]} to {LATER[-1]}: should stay quiet"):
            told(send(url, records(LATER, limit=ROWS), seconds=SECONDS))
            wait_for(ground, "DriftDetected", "False")
        show(ground)
        with step("Only people over 60 now: should alarm"):
            old = records(LATER, where="AGEP > 60", limit=ROWS)
            told(send(url, old, seconds=SECONDS))
            wait_for(ground, "DriftDetected", "True")
        show(ground)
        say(condition(ground, "DriftDetected")["message"])
        with step(
            "A new training moves the alias: rolled out under load, without a failed request"
        ):
            roll_out(ground, url)
    show(ground, "-o", "wide")
    what_next(ground)


def down() -> None:
    """Remove the sandbox, or what was installed into an existing cluster."""
    if os.environ.get("REGISTRY"):
        ground = find_ground()
        ground.kubectl("delete", "-f", str(MANIFEST), "--ignore-not-found", "--wait")
        uninstall(ground)
    else:
        run(sys.executable, "-m", "sandbox", "down", "--name", SANDBOX)


def roll_out(ground: Ground, url: str) -> None:
    """Train again and wait until the new version alone answers.

    Raises:
        DemoError: a request failed, or the new version did not come.
    """
    before = version(ground)
    with steady(url, records(LATER, limit=2000)) as tally:
        say(train(ground, NAME, "--seed", "1"))
        wait("the new version to serve", lambda: version(ground) != before and at_rest(ground))
        time.sleep(3)
    told(tally)
    if tally.failures:
        raise DemoError(f"requests failed during the rollout: {dict(tally.failures)}")
    if len(tally.versions) < 2:
        raise DemoError(f"only version {list(tally.versions)} answered")


def make_namespace(ground: Ground, name: str) -> None:
    """Make a namespace that enforces the restricted pod security standard."""
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    ground.kubectl("apply", "-f", "-", given=json.dumps(manifest))
    ground.kubectl("label", "namespace", name, RESTRICTED, "--overwrite")


def wait_ready(ground: Ground) -> None:
    """Wait as a user would, by kubectl."""
    ground.kubectl(
        "wait",
        "--for=condition=Ready",
        f"modeldeployment/{NAME}",
        "-n",
        NAMESPACE,
        "--timeout=300s",
    )


def wait_for(ground: Ground, type_: str, status: str) -> None:
    """Wait for a condition."""
    wait(f"{type_}={status}", lambda: condition(ground, type_).get("status") == status)


def wait(what: str, holds: Callable[[], bool], seconds: float = 180) -> None:
    """Wait for something.

    Raises:
        DemoError: it did not come; with the object as it is.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise DemoError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(1)


def condition(ground: Ground, type_: str) -> dict[str, Any]:
    """Read a condition; empty while there is none."""
    conditions = ground.deployment(NAME, NAMESPACE).get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == type_), {})


def version(ground: Ground) -> str:
    """Read the version of the predictor that is deployed."""
    models = ground.deployment(NAME, NAMESPACE)["status"].get("models", [])
    return next((model["version"] for model in models if model["role"] == "predictor"), "")


def at_rest(ground: Ground) -> bool:
    """Tell whether nothing is being rolled out."""
    return condition(ground, "Ready").get("status") == "True" and not condition(
        ground, "Reconciling"
    )


def told(tally: Tally) -> None:
    """Say what the clients saw."""
    versions = ", ".join(f"{count} by version {name}" for name, count in tally.versions.items())
    failed = sum(tally.failures.values())
    say(f"  {tally.answered} requests answered ({versions}), {tally.rows} rows, {failed} failed")


def show(ground: Ground, *arguments: str) -> None:
    """Show what kubectl shows."""
    say("\n$ kubectl get modeldeployments -n staging " + " ".join(arguments))
    say(ground.kubectl("get", "modeldeployments", "-n", NAMESPACE, *arguments).rstrip())


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    began = time.monotonic()
    say(f"\n=== {title}")
    yield
    say(f"    done in {time.monotonic() - began:.1f} s")


def what_next(ground: Ground) -> None:
    """Say what to try."""
    kubectl = f"{ground.kubectl_program} --kubeconfig {ground.kubeconfig} -n {NAMESPACE}"
    swagger = f"{kubectl} port-forward service/{NAME} 8080:80     then http://127.0.0.1:8080/"
    if ground.sandbox:  # whose services are routed from this machine
        swagger = f"http://{service_address(ground)}/"
    say(
        f"""
Everything stays up until `make demo-down`. To try next:
  Swagger    {swagger}
  MLflow     {ground.tracking_uri}
  conditions {kubectl} describe modeldeployment {NAME}
  one copy   {kubectl} scale modeldeployment {NAME} --replicas=1"""
    )


def service_address(ground: Ground) -> str:
    """Read the cluster's address of the served model."""
    return ground.kubectl(
        *("get", "service", NAME, "-n", NAMESPACE, "-o", "jsonpath={.spec.clusterIP}")
    )


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
