"""What people do today: the Dockerfile that BentoML generates, built and pushed by buildah.

    service.py, requirements.txt, models/ROLE        as BentoML's guide for MLflow models has it
    bentoml build                                    writes env/docker/Dockerfile
    buildah bud --layers, buildah push               what is measured

Its RUN steps run with `--isolation chroot` on overlay folders. They see the local package index by
mounted configurations of pip and uv, which leave no trace in the image. Before anything is
measured, the layers up to the model's own packages are in the cache: Debian's compilers, which this
Dockerfile installs, and uv.
"""

import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

SERVICE = """import bentoml
import mlflow
import pandas

image = bentoml.images.Image(
    python_version="3.11", base_image={base!r}, lock_python_packages=False
).requirements_file("requirements.txt")


@bentoml.service(name="model", image=image)
class Model:
    def __init__(self) -> None:
        self.model = mlflow.pyfunc.load_model("models/predictor")

    @bentoml.api
    def predict(self, rows: list[dict]) -> list:
        return self.model.predict(pandas.DataFrame(rows)).tolist()
"""
SAMPLED = 0.05
"""Seconds between two looks at the memory."""


class Buildah:
    """Buildah with a store of its own, and a Python that has BentoML and MLflow."""

    def __init__(self, folder: Path, index: str, python: Path) -> None:
        self._folder = folder
        self._python = python
        (folder / "pip.conf").write_text(f"[global]\nindex-url = {index}\n")
        (folder / "uv.toml").write_text(f'[[index]]\nurl = "{index}"\ndefault = true\n')
        self._command = [
            *("buildah", "--storage-driver", "overlay"),
            *("--root", str(folder / "store"), "--runroot", str(folder / "run")),
        ]

    def model(self, address: str, tracking_uri: str) -> Path:
        """Have MLflow's own program fetch a model, and give its folder."""
        place = Path(tempfile.mkdtemp(dir=self._folder))
        subprocess.run(
            [
                *(self._python, "-m", "mlflow", "artifacts", "download"),
                *("--artifact-uri", address, "--dst-path", place),
            ],
            env=os.environ | {"MLFLOW_TRACKING_URI": tracking_uri},
            check=True,
            capture_output=True,
        )
        return place

    def bento(self, models: Mapping[str, Path], requirements: Sequence[str], base: str) -> Path:
        """Have BentoML make a Bento of models' folders by role, and give the Bento's."""
        project = self._folder / f"project-{time.monotonic_ns()}"
        (project / "models").mkdir(parents=True)
        for role, folder in models.items():
            shutil.copytree(folder, project / "models" / role)
        (project / "service.py").write_text(SERVICE.format(base=base))
        (project / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements))
        outcome = subprocess.run(
            [self._python, "-m", "bentoml", "build", "--output", "tag"],
            cwd=project,
            env=os.environ
            | {"BENTOML_HOME": str(self._folder / "home"), "BENTOML_DO_NOT_TRACK": "True"},
            capture_output=True,
            text=True,
            check=True,
        )
        name, _, version = outcome.stdout.strip().removeprefix("__tag__:").partition(":")
        return self._folder / "home" / "bentos" / name / version

    def base(self, archive: Path, reference: str) -> None:
        """Push an archive of a file system as an image of one layer."""
        text = 'FROM scratch\nADD base.tar /\nCMD ["python3"]\n'
        self._image(text, {"base.tar": archive}, reference)

    def moved_base(self, base: str, reference: str) -> None:
        """Push a base image with one file more."""
        files = {"mended": self._folder / "uv.toml"}
        self._image(f"FROM {base}\nADD mended /etc/\n", files, reference)

    def _image(self, text: str, files: dict[str, Path], reference: str) -> None:
        context = self._folder / f"context-{time.monotonic_ns()}"
        context.mkdir()
        (context / "Dockerfile").write_text(text)
        for name, path in files.items():
            (context / name).hardlink_to(path)
        self._run("bud", "--tls-verify=false", "--tag", reference, str(context))
        self._run("push", "--tls-verify=false", reference)

    def build(self, bento: Path, reference: str, *, push: bool = True) -> dict[str, Any]:
        """Build and push; give seconds, cpu (seconds), memory (MB) and the reference."""
        mounts = (
            f"--volume={self._folder}/pip.conf:/etc/pip.conf:ro",
            f"--volume={self._folder}/uv.toml:/etc/uv/uv.toml:ro",
        )
        usages = [
            self._run(
                *("bud", "--isolation", "chroot", "--network", "host", "--layers"),
                *("--tls-verify=false", *mounts, "--tag", reference),
                *("--file", str(bento / "env/docker/Dockerfile"), str(bento)),
            )
        ]
        if push:
            usages.append(self._run("push", "--tls-verify=false", reference))
        return {
            "seconds": sum(usage["seconds"] for usage in usages),
            "cpu": sum(usage["cpu"] for usage in usages),
            "memory": max(usage["memory"] for usage in usages),
            "reference": reference,
        }

    def forget(self, reference: str) -> None:
        """Remove an image and the layers in the cache that no other has."""
        self._run("rmi", "--force", reference)
        self._run("rmi", "--prune", "--force")

    def _run(self, *arguments: str) -> dict[str, float]:
        return run_measured([*self._command, *arguments], self._folder / "log")


def run_measured(command: Sequence[str], log: Path) -> dict[str, float]:
    """Run a program; give seconds, cpu (seconds) and memory (MB) of it and all its children."""
    begun = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    ended = Event()
    memory = [0.0]
    watching = Thread(target=_watch, args=(process.pid, ended, memory))
    watching.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begun
    ended.set()
    watching.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-3000:]}")
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "memory": memory[0]}


def _watch(pid: int, ended: Event, memory: list[float]) -> None:
    while not ended.wait(SAMPLED):
        memory[0] = max(memory[0], _resident(pid))


def _resident(pid: int) -> float:
    """Megabytes of a process and all its children; 0 of one that has ended meanwhile."""
    process = Path("/proc", str(pid))
    try:
        pages = int((process / "statm").read_text().split()[1])
        children = [
            child
            for task in (process / "task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * resource.getpagesize() / 1e6 + sum(_resident(int(child)) for child in children)
