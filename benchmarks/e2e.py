"""From `kubectl apply` to Ready, and from a moved alias to the new version, step by step.

It runs in a sandbox of its own, called `bench`, and prints medians of several rounds. The first
round builds the image's dependency layers, later ones find them in the registry; the pods' node has
them too from the second round on. Peer: the same image, which the node has already, started
by a plain Deployment, which is the least that any operator can take.
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

from demo.__main__ import NAME, NAMESPACE, make_namespace
from demo.ground import ROOT, Ground, find_ground, run
from demo.platform import install, push_images, train

MANIFEST = ROOT / "demo" / "modeldeployment.yaml"
POLL_INTERVAL = 3.0
"""Seconds, as the demo's values have it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ground = find_ground("bench")
    try:
        install(ground, push_images(ground))
        train(ground, NAME)
        make_namespace(ground, NAMESPACE)
        rounds = [one_round(ground, number) for number in range(options.rounds + 1)]
    finally:
        run(sys.executable, "-m", "sandbox", "down", "--name", "bench")
    report(rounds)


def one_round(ground: Ground, number: int) -> dict[str, float]:
    figures = apply_to_ready(ground)
    figures["plain Deployment of the same image, apply to ready"] = plain(ground)
    figures |= moved_alias(ground, seed=number + 10)
    ground.kubectl("delete", "-f", str(MANIFEST), "--wait")
    until(lambda: not ground.kubectl("-n", NAMESPACE, "get", "pods", "-o", "name").strip())
    for figure, seconds in figures.items():
        print(f"round {number}  {figure:55} {seconds:6.1f} s", flush=True)
    return figures


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


def report(rounds: list[dict[str, float]]) -> None:
    first, *later = rounds
    medians = {figure: statistics.median(one[figure] for one in later) for figure in first}
    print(f"\n{'':55} {'first':>8} {'median of the later':>20}")
    for figure, seconds in medians.items():
        print(f"{figure:55} {first[figure]:6.1f} s {seconds:18.1f} s")
    ready = medians["apply to Ready"]
    moved = medians["moved alias to the new version on both replicas"]
    goals = [
        goal("apply to Ready, seconds, layers on registry and node", ready, 8.0),
        goal("moved alias to both replicas, seconds", moved, 12.0 + POLL_INTERVAL),
    ]
    print(json.dumps({"benchmark": "e2e", "goals": goals}))


def goal(name: str, value: float, bound: float) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "bound": f"<= {bound}", "met": value <= bound}


if __name__ == "__main__":
    main()
