"""Images of models: our builder beside the Dockerfile that BentoML generates, built by buildah.

In a sandbox of its own, called `bench`: one MLflow, one registry, one package index on loopback
that has all wheels (`local_index`), one base image for both sides: Debian's Python with pip, which
the generated Dockerfile needs, made by mmdebstrap as `python:3.11-slim` would be. Both sides build
the same LightGBM model, registered by `mlflow.lightgbm.log_model` with the requirements that MLflow
infers: "full" serves it as a pyfunc, as the peer does. "lean" is the image of three models with our
flavor, a predictor and two detectors, which the pods of this project usually run; it is built after
"full", and its first build finds the layers that both have. A new version of it is beside "three",
the peer's way with the same three models, and the packages that the peer has already.

Our builder is a process that stays, as in a cluster. Its seconds are from the name of a version to
the image in the registry, the model's way from MLflow included. So the peer is judged by that whole
way: `mlflow artifacts download`, `bentoml build`, `buildah bud`, `buildah push`, none of which can
be left out when a version is new. Its row has the seconds of buildah alone, then those of the
others. Each round of a first build has a repository of its own, and the layers of the round before
are forgotten. Bytes pushed are what the registry's storage grew by. The pod's
seconds are from `kubectl apply` until it is ready: "pull" with nothing of it on the node (but what
images before it brought), "new version" where the node has the version before, "start" with all of
it there.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlflow import MlflowClient
from modelops_operator.adapters.oci import Reference, Registry
from modelops_operator.api.config import BuilderConfig
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import ImageModel
from modelops_operator.builder.bundle import read_bundle
from modelops_operator.builder.images import WORKSPACE, write_workspace_bundle
from modelops_operator.builder.lock import resolve
from modelops_operator.builder.requirements import read_requirements
from modelops_operator.builder.target import Target
from uv import find_uv_bin

from benchmarks.buildah import Buildah
from benchmarks.builder_worker import Worker, spec_of, version_of
from benchmarks.large_model import goals_of_large_model
from benchmarks.local_index import LocalIndex
from benchmarks.reporting import at_least, conclude, goal
from demo.ground import Ground, find_ground, run
from sandbox import debian, places
from sandbox.programs import run as run_program

SANDBOX = "bench"
PEERS = ("buildah", "skopeo")
"""Debian packages that are installed where they are missing."""
TARGET = Target("3.11", "linux/amd64")
LIBRARY = "statsmodels==0.14.6"
"""What is added to the model's requirements; it brings patsy."""
UV = "uv==0.13.4"
"""What the generated Dockerfile installs."""
NAMESPACE = "default"
ROWS = ("first build", "new version", "same again", "library added", "base moved")
SIDES = ("peer", "full", "lean")
SETTLING = 3
"""Seconds that the node has to clear away a pod before anything else is measured."""
PEER_OF = {"full": "peer", "lean": "three"}
"""Whose new version has the same models."""
TRAIN = """
import json, sys, lightgbm, mlflow
from importlib.metadata import version
from modelops_training.data import FEATURES, REFERENCE_YEAR, TARGET, employment
mlflow.set_tracking_uri(sys.argv[1])
frame = employment([REFERENCE_YEAR])
rows = frame[list(FEATURES)].astype(float)
data = lightgbm.Dataset(rows, frame[TARGET])
signature = mlflow.models.infer_signature(rows[:100], frame[TARGET][:100].astype(float))
used = [f"{name}=={version(name)}" for name in
        ("mlflow", "lightgbm", "numpy", "pandas", "scikit-learn", "scipy")]
for seed, more in enumerate(json.loads(sys.argv[2])):
    settings = {"objective": "binary", "verbose": -1, "seed": seed, "feature_fraction": 0.8}
    booster = lightgbm.train(settings, data, 100)
    with mlflow.start_run():
        mlflow.lightgbm.log_model(booster, name="model", registered_model_name="plain",
                                  signature=signature, pip_requirements=[*used, *more])
"""
TRAIN_THREE = """
import sys
from modelops_training import register, train
from modelops_training.data import FEATURES, REFERENCE_YEAR, TARGET, employment
frame = employment([REFERENCE_YEAR])[[*FEATURES, TARGET]]
for seed in range(int(sys.argv[2])):
    register(train(frame, TARGET, seed=seed), "employment", tracking_uri=sys.argv[1])
"""
Usage = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all measurements share."""

    ground: Ground
    folder: Path
    buildah: Buildah
    workers: Sequence[Worker]
    """One for each round of a first build; the last one also does what follows."""
    wanted: list[str] = field(default_factory=list)
    """The requirements of the model that the peer built first."""
    base: str
    """By digest."""
    moved: str
    """The base with one file more, by digest."""

    def measured(self, side: str, work: Any) -> Usage:
        """Do something that pushes an image, and add what it pushed and how large the image is."""
        before = stored()
        usage: Usage = work()
        usage["pushed"] = (stored() - before) / 1e6
        usage["size"] = asyncio.run(size_of(self.ground.registry, usage["reference"])) / 1e6
        return usage | {"side": side}

    def build(self, side: str, models: Sequence[ImageModel], base: str, place: int = -1) -> Usage:
        """Have one side build an image and push it, to the repositories of a round."""
        place %= len(self.workers)
        ours = side in PEER_OF
        return (
            self._ours(side, models, base, place) if ours else self._peer(side, models, base, place)
        )

    def _ours(self, side: str, models: Sequence[ImageModel], base: str, place: int) -> Usage:
        spec = spec_of(self.ground, side, models, base, prefix_of(place))
        usage = self.measured(side, lambda: self.workers[place].build(spec))
        return usage | {"whole": usage["seconds"]}

    def _peer(self, side: str, models: Sequence[ImageModel], base: str, place: int) -> Usage:
        begun = time.monotonic()
        folders = {
            str(model.role): self.buildah.model(
                f"models:/{model.name}/{model.version}", self.ground.tracking_uri
            )
            for model in models
        }
        fetched = time.monotonic()
        if side == "peer":
            listed = folders[Role.PREDICTOR] / "requirements.txt"
            self.wanted[:] = listed.read_text().split()
        bento = self.buildah.bento(folders, self.wanted, base)
        prepared = time.monotonic()
        reference = f"{self.ground.registry}/peer/{side}{place}:{models[0].version}-{bento.name}"
        usage = self.measured(side, lambda: self.buildah.build(bento, reference))
        usage |= {"download": fetched - begun, "bentoml build": prepared - fetched}
        return usage | {"whole": usage["seconds"] + prepared - begun}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=5000, help="MB of the large model; 0: none")
    options = parser.parse_args()
    if missing := [name for name in PEERS if shutil.which(name) is None]:
        debian.install(missing)
    ground = find_ground(SANDBOX)
    try:
        with tempfile.TemporaryDirectory(prefix="modelops-bench-") as name, ExitStack() as stack:
            bench = prepare(ground, Path(name), stack, options.rounds)
            figures = measure(bench, register(ground, options.rounds), options.rounds)
            goals = report(figures)
            if options.large:
                goals += goals_of_large_model(ground, bench.workers[-1], bench.base, options.large)
    finally:
        run(sys.executable, "-m", "sandbox", "down", "--name", SANDBOX)
    conclude("image", goals)


# --- the ground ----------------------------------------------------------------------------


def prefix_of(place: int) -> str:
    """Name what a round of a first build has in the registry."""
    return f"modelops{place}"


def prepare(ground: Ground, folder: Path, stack: ExitStack, rounds: int) -> Bench:
    index = LocalIndex(places.cache_folder() / "bench-index")
    url = stack.enter_context(index.serving())
    bundle = prepare_wheels(ground, index, folder / "bundle")
    peer = folder / "buildah"
    peer.mkdir()
    python = interpreter()
    buildah = Buildah(peer, url, python)
    names = [f"{ground.registry}/bench/python:{tag}" for tag in ("3.11", "mended")]
    buildah.base(base_archive(), names[0])
    buildah.moved_base(*names)
    base, moved = (asyncio.run(by_digest(ground.registry, name)) for name in names)
    # The layers that every model's image shares.
    buildah.build(buildah.bento({}, [], base), f"{ground.registry}/peer/warm:1", push=False)
    config = {
        "mlflow": {"trackingUri": ground.tracking_uri},
        "builder": {"runtimeBundle": str(bundle), "indexUrls": [url]},
    }
    registry = {"host": ground.registry, "insecure": True}
    workers = [
        stack.enter_context(
            Worker(python, config | {"registry": registry | {"prefix": prefix_of(number)}})
        )
        for number in range(rounds)
    ]
    return Bench(
        ground=ground, folder=folder, buildah=buildah, workers=workers, base=base, moved=moved
    )


def interpreter() -> Path:
    """Give Debian's Python, which the builder's image has, with this workspace; else this one.

    One that a version manager compiled without profiles takes a third longer for the same. Both
    sides run in it: our builder, and the peer's `mlflow` and `bentoml`.
    """
    debians = Path(f"/usr/bin/python{TARGET.python}")
    if not debians.exists():
        return Path(sys.executable)
    folder = places.cache_folder() / "bench-python"
    subprocess.run(
        [find_uv_bin(), "sync", "--frozen", "--quiet", "--compile-bytecode", "--python", debians],
        cwd=WORKSPACE,
        env=os.environ | {"UV_PROJECT_ENVIRONMENT": str(folder)},
        check=True,
    )
    return folder / "bin" / "python"


def prepare_wheels(ground: Ground, index: LocalIndex, folder: Path) -> Path:
    """Have the index offer all that either side installs; give our runtime's bundle."""
    write_workspace_bundle(WORKSPACE, folder)
    bundle = read_bundle(folder, version("modelops-runtime"))
    ca_bundle = Path(ground.ca_bundle) if ground.ca_bundle else None
    config = BuilderConfig(index_urls=(ground.index,), ca_bundle=ca_bundle)
    names = ("mlflow", "lightgbm", "numpy", "pandas", "scikit-learn", "scipy", "bentoml")
    asked = [*(f"{name}=={version(name)}" for name in names), LIBRARY]
    ours = read_requirements("\n".join(asked), None, model="bench").wanted
    wanted = [*asked, *ours, *bundle.requirements(fast=True)]
    found = [
        asyncio.run(resolve(lines, TARGET, config=config, preferred=bundle.lock_content))
        for lines in (wanted, [UV])
    ]
    own = [wheel for wheel in bundle.lock(TARGET).wheels if not wheel.own]
    wheels = {wheel.sha256: wheel for wheel in (*own, *found[0].wheels, *found[1].wheels)}
    index.add(wheels.values(), ca_bundle)
    return folder


def base_archive() -> Path:
    """Give the file system of the base image, made where it is not in the cache."""
    path = places.cache_folder() / "base" / f"bench-python{TARGET.python}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft.tar")
        run_program(
            "making the base image",
            *("mmdebstrap", "--mode=root", "--variant=minbase"),
            "--include=python3,python3-pip,ca-certificates,libgomp1",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
            # As in Docker's image of Python, pip may install; what only this machine has goes.
            '--customize-hook=cd "$1" && rm -rf usr/lib/python3*/EXTERNALLY-MANAGED '
            "etc/resolv.conf etc/hostname var/cache/* var/log/*",
            *("bookworm", str(draft)),
        )
        draft.rename(path)
    return path


def register(ground: Ground, rounds: int) -> dict[str, list[list[ImageModel]]]:
    """Train and register the versions that are built; the last plain one wants a library more."""
    more: list[list[str]] = [[] for _ in range(rounds + 1)]
    train(TRAIN, ground.tracking_uri, json.dumps([*more, [LIBRARY]]))
    train(TRAIN_THREE, ground.tracking_uri, str(rounds + 1))
    client = MlflowClient(ground.tracking_uri, ground.tracking_uri)
    lean = {Role.PREDICTOR: "employment"}
    lean |= {role: f"employment_{role}" for role in (Role.DRIFT, Role.OUTLIER)}
    return {
        "plain": [
            models_of(client, {Role.PREDICTOR: "plain"}, number + 1) for number in range(rounds + 2)
        ],
        "lean": [models_of(client, lean, number + 1) for number in range(rounds + 1)],
    }


def train(program: str, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def models_of(client: MlflowClient, names: Mapping[Role, str], number: int) -> list[ImageModel]:
    return [version_of(client, role, name, str(number)) for role, name in names.items()]


# --- measuring -----------------------------------------------------------------------------


def first_builds(
    bench: Bench, versions: Mapping[str, Sequence[Sequence[ImageModel]]], rounds: int
) -> dict[str, Usage]:
    """Give what the first build took each side, with nothing of it in its repository."""
    taken: dict[str, list[Usage]] = {side: [] for side in SIDES}
    for place in range(rounds):
        if place:
            bench.buildah.forget(taken["peer"][-1]["reference"])
        for side in SIDES:  # interleaved
            taken[side].append(bench.build(side, versions[side][0], bench.base, place))
    figures = {side: medians(usages) for side, usages in taken.items()}
    for side, usage in figures.items():
        usage["pushed"] = taken[side][0]["pushed"]  # the storage keeps what it has from then on
        usage["pod"] = pod(bench.ground, taken[side][-1])
        say("first build", side, usage)
    return figures


def measure(
    bench: Bench, models: Mapping[str, list[list[ImageModel]]], rounds: int
) -> dict[tuple[str, str], Usage]:
    """Give what each row took each side: medians of the rounds; the last two rows once."""
    sides = (*SIDES, "three")
    versions = {side: models["lean" if side in {"lean", "three"} else "plain"] for side in sides}
    figures = {
        ("first build", side): usage
        for side, usage in first_builds(bench, versions, rounds).items()
    }
    bench.build("three", versions["three"][0], bench.base)  # what a new version of it finds
    for row in ("new version", "same again"):
        taken: dict[str, list[Usage]] = {side: [] for side in sides}
        for number in range(1, rounds + 1):
            for side in sides:
                taken[side].append(bench.build(side, versions[side][number], bench.base))
            for side in SIDES if row == "new version" else ():
                for name in ("pod", "start"):
                    taken[side][-1][name] = pod(bench.ground, taken[side][-1])
        for side in sides:
            figures[row, side] = medians(taken[side])
            say(row, side, figures[row, side])
    for side in ("peer", "full"):
        figures["library added", side] = bench.build(side, versions[side][-1], bench.base)
        say("library added", side, figures["library added", side])
    for side in SIDES:
        figures["base moved", side] = bench.build(side, versions[side][rounds], bench.moved)
        say("base moved", side, figures["base moved", side])
    return figures


def medians(usages: Sequence[Usage]) -> Usage:
    return {
        name: statistics.median(usage[name] for usage in usages)
        if isinstance(usages[0][name], int | float)
        else usages[0][name]
        for name in usages[0]
    } | {"digests": [usage["reference"] for usage in usages]}


def pod(ground: Ground, usage: Usage) -> float:
    """Seconds from applying a pod of an image until it is ready, its pull included."""
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bench", "namespace": NAMESPACE},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "model",
                    "image": usage["reference"],
                    **({"args": ["serve"]} if usage["side"] == "peer" else {}),
                    "env": [{"name": "MODELOPS_DEPLOYMENT", "value": "default/bench"}],
                    "readinessProbe": {
                        "httpGet": {"path": "/readyz", "port": 3000},
                        "periodSeconds": 1,
                    },
                }
            ],
        },
    }
    begun = time.monotonic()
    ground.kubectl("apply", "-f", "-", given=json.dumps(manifest))
    ground.kubectl("wait", "pod/bench", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=120s")
    seconds = time.monotonic() - begun
    ground.kubectl("delete", "pod", "bench", "-n", NAMESPACE, "--wait")
    time.sleep(SETTLING)
    return seconds


def stored() -> int:
    """Bytes of the blobs in the sandbox's registry."""
    found = places.find(SANDBOX)
    assert found is not None
    blobs = found.state / "registry" / "docker/registry/v2/blobs"
    return sum(path.stat().st_size for path in blobs.glob("sha256/*/*/data"))


async def by_digest(host: str, name: str) -> str:
    reference = Reference.parse(name)
    async with Registry(host, insecure=True) as registry:
        manifest = await registry.manifest(reference.repository, reference.version)
    assert manifest is not None
    return f"{host}/{reference.repository}@{manifest.digest}"


async def size_of(host: str, name: str) -> int:
    """Bytes of an image's layers, compressed."""
    reference = Reference.parse(name)
    async with Registry(host, insecure=True) as registry:
        manifest = await registry.manifest(reference.repository, reference.version)
    assert manifest is not None
    return sum(layer["size"] for layer in manifest.parsed()["layers"])


# --- telling -------------------------------------------------------------------------------


def say(row: str, side: str, usage: Usage) -> None:
    pods = "".join(
        f"  {name} {usage[name]:5.1f} s"
        for name in ("pod", "start", "download", "bentoml build")
        if name in usage
    )
    print(
        f"{row:14} {side:5} {usage['seconds']:8.2f} s {usage['cpu']:7.2f} s CPU "
        f"{usage['pushed']:8.2f} MB pushed {usage['memory']:7.0f} MB memory "
        f"{usage['size']:6.0f} MB image{pods}",
        flush=True,
    )


def report(figures: Mapping[tuple[str, str], Usage]) -> list[dict[str, Any]]:
    print("\nmedians of the rounds; library added and base moved: once")
    for (row, side), usage in sorted(figures.items(), key=lambda item: ROWS.index(item[0][0])):
        say(row, side, usage)

    def times(row: str, side: str, name: str, peer: str = "peer") -> float:
        return float(figures[row, peer][name] / figures[row, side][name])

    new = {side: figures["new version", side] for side in SIDES}
    again = {side: figures["same again", side] for side in ("full", "lean")}
    same = all(again[side]["digests"] == new[side]["digests"] for side in again)
    return [
        *(
            line
            for side in again
            for line in (
                goal(f"{side}: new version, seconds", new[side]["seconds"], 0.3),
                at_least(
                    f"{side}: new version, faster",
                    times("new version", side, "whole", PEER_OF[side]),
                    50,
                ),
                goal(f"{side}: new version, requests", new[side]["requests"], 16),
                at_least(f"{side}: first build, faster", times("first build", side, "whole"), 5),
            )
        ),
        at_least("full: library added, fewer bytes", times("library added", "full", "pushed"), 5),
        *(
            goal(f"lean: {what}, part of the peer's", 1 / times("new version", "lean", name), 0.45)
            for what, name in (("size", "size"), ("start to ready", "start"), ("pull", "pod"))
        ),
        at_least("same inputs, same digest", float(same), 1),
    ]


if __name__ == "__main__":
    main()
