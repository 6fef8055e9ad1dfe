"""From `kubectl apply` to Ready, and from a moved alias to the new version, step by step.

It runs in a sandbox of its own, called `bench`. First nothing of the image is on the registry, then
all is there but nothing on the node, then the node has it too: medians of several rounds. Peer: the
same image, which the node has already, started by a plain Deployment, which is the least that any
operator can take.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.reporting import conclude, goal
from demo.__main__ import NAME, NAMESPACE, make_namespace
from demo.ground import ROOT, Ground, find_ground, run
from demo.platform import install, push_images, train, values

MANIFEST = ROOT / "demo" / "modeldeployment.yaml"
BUILT = "apply to ImageReady, nothing on the registry"
PULLED = "apply to Ready, all on the registry, nothing on the node"
POLL_INTERVAL = 3.0
"""Seconds, as the demo's values have it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ground = find_ground("bench")
    try:
        install(ground, values(ground, push_images(ground)))
        train(ground, NAME)
        make_namespace(ground, NAMESPACE)
        first = first_times(ground)
        rounds = [one_round(ground, number) for number in range(options.rounds)]
    finally:
        run(sys.executable, "-m", "sandbox", "down", "--name", "bench")
    report(first, rounds)


def first_times(ground: Ground) -> dict[str, float]:
    """Build the image for a deployment of no replicas; then have the node pull it."""
    manifest = json.loads(
        ground.kubectl("create", "--dry-run=client", "-f", str(MANIFEST), "-o", "json")
    )
    manifest["spec"]["serving"]["replicas"] = 0
    began = time.monotonic()
    ground.kubectl("apply", "-f", "-", given=json.dumps(manifest))
    until(lambda: status_of(ground, "ImageReady") == "True")
    built = time.monotonic() - began
    delete(ground)
    pulled = apply_to_ready(ground)["apply to Ready"]
    delete(ground)
    figures = {BUILT: built, PULLED: pulled}
    show("first  ", figures)
    return figures


def one_round(ground: Ground, number: int) -> dict[str, float]:
    figures = apply_to_ready(ground)
    figures["plain Deployment of the same image, apply to ready"] = plain(ground)
    figures |= moved_alias(ground, seed=number + 10)
    delete(ground)
    show(f"round {number}", figures)
    return figures


def show(when: str, figures: dict[str, float]) -> None:
    for figure, seconds in figures.items():
        print(f"{when}  {figure:58} {seconds:6.1f} s", flush=True)


def delete(ground: Ground) -> None:
    ground.kubectl("delete", "-f", str(MANIFEST), "--wait")
    until(lambda: not ground.kubectl("-n", NAMESPACE, "get", "pods", "-o", "name").strip())


def apply_to_ready(ground: Ground) -> dict[str, float]:
    began = time.monotonic()
    ground.kubectl("apply", "-f", str(MANIFEST))
    steps = {}
    for condition in ("ModelsResolved", "ImageReady", "Ready"):
        until(lambda name=condition: status_of(ground, name) == "True")  # type: ignore[misc]
        steps[f"apply to {condition}"] = time.monotonic() - began
    return steps


def plain(ground: Ground) -> float:
    live = json.loads(ground.kubectl("-n", NAMESPACE, "get", "deployment", NAME, "-o", "json"))
    labels = {"app": "plain"}
    template = live["spec"]["template"]
    template["metadata"] = {"labels": labels}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "plain", "namespace": NAMESPACE},
        "spec": {
            "replicas": live["spec"]["replicas"],
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }
    began = time.monotonic()
    ground.kubectl("apply", "-f", "-", given=json.dumps(manifest))
    ground.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/plain", "--timeout=180s")
    took = time.monotonic() - began
    ground.kubectl("-n", NAMESPACE, "delete", "deployment", "plain", "--cascade=foreground")
    return took


def moved_alias(ground: Ground, seed: int) -> dict[str, float]:
    before = version(ground)
    train(ground, NAME, "--seed", str(seed))
    began = time.monotonic()
    until(lambda: version(ground) != before)
    seen = time.monotonic() - began
    until(lambda: rolled_out(ground))
    return {
        "moved alias to the rollout's start": seen,
        "moved alias to the new version on both replicas": time.monotonic() - began,
    }


def rolled_out(ground: Ground) -> bool:
    live = json.loads(ground.kubectl("-n", NAMESPACE, "get", "deployment", NAME, "-o", "json"))
    status, wanted = live["status"], live["spec"]["replicas"]
    return bool(
        status.get("observedGeneration") == live["metadata"]["generation"]
        and status.get("updatedReplicas") == status.get("replicas") == wanted
        and status.get("availableReplicas") == wanted
    )


def version(ground: Ground) -> str:
    models = ground.deployment(NAME, NAMESPACE).get("status", {}).get("models", [])
    return next((model["version"] for model in models if model["role"] == "predictor"), "")


def status_of(ground: Ground, type_: str) -> str:
    conditions: list[dict[str, Any]] = (
        ground.deployment(NAME, NAMESPACE).get("status", {}).get("conditions", [])
    )
    return next((str(one["status"]) for one in conditions if one["type"] == type_), "")


def until(holds: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit("nothing came within 300 s")
        time.sleep(0.1)


def report(first: dict[str, float], rounds: list[dict[str, float]]) -> None:
    medians = {figure: statistics.median(one[figure] for one in rounds) for figure in rounds[0]}
    print(f"\nonce, and medians of {len(rounds)} rounds")
    show("", first | medians)
    ready = medians["apply to Ready"]
    moved = medians["moved alias to the new version on both replicas"]
    goals = [
        goal("apply to Ready, seconds, layers on registry and node", ready, 8.0),
        goal("apply to Ready, seconds, layers on the registry only", first[PULLED], 15.0),
        goal("moved alias to both replicas, seconds", moved, 12.0 + POLL_INTERVAL),
    ]
    conclude("e2e", goals)


if __name__ == "__main__":
    main()
