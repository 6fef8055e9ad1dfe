"""The builder as a process that stays, which benchmarks send specs to and whose use they measure.

The first argument is the operator's configuration; a line of the standard input is the spec of a
ModelImage, and a line of the output says what building it took.
"""

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlflow import MlflowClient
from modelops_operator.adapters.oci import Registry
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import ImageModel, ImageRuntime, ModelImageSpec
from modelops_operator.builder.build import Builder
from modelops_operator.builder.models import warm_up

from demo.ground import Ground


class Worker:
    """Starts the builder in some interpreter; use it as a context manager."""

    def __init__(self, python: Path, config: dict[str, Any]) -> None:
        self._python = python
        self._config = config

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [self._python, __file__, json.dumps(self._config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def build(self, spec: ModelImageSpec) -> dict[str, Any]:
        """Build an image; give seconds, cpu (seconds), memory (MB), requests and the reference."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{spec.model_dump_json(by_alias=True)}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def version_of(client: MlflowClient, role: Role, name: str, number: str) -> ImageModel:
    """Name a registered version as the operator does."""
    found = client.get_model_version(name, number)
    return ImageModel(
        role=role,
        name=name,
        version=number,
        run_id=found.run_id or "",
        source=found.source or "",
    )


def spec_of(
    ground: Ground,
    repository: str,
    models: Sequence[ImageModel],
    base: str,
    prefix: str = "modelops",
) -> ModelImageSpec:
    """Ask for an image of models in a repository under a prefix."""
    return ModelImageSpec(
        models=tuple(models),
        tracking_uri=ground.tracking_uri,
        repository=f"{ground.registry}/{prefix}/{repository}",
        runtime=ImageRuntime(version=version("modelops-runtime")),
        python="3.11",
        platforms=("linux/amd64",),
        base=base,
    )


def cpu() -> float:
    """Seconds of CPU of this process and of the children that have ended."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak() -> float:
    """Megabytes that this process had at most since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1e3 for line in status.splitlines() if "VmHWM" in line)


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


async def main() -> None:
    config = OperatorConfig.model_validate(json.loads(sys.argv[1]))
    warm_up()
    async with Builder(config) as builder:
        for line in iter(sys.stdin.readline, ""):
            spec = ModelImageSpec.model_validate_json(line)
            site = await builder._opened()  # noqa: SLF001 (it counts the requests)
            registry = await site.connections.registry(config.registry.host)
            assert isinstance(registry, Registry)
            forget_peak()
            requests, used, begun = registry.requests, cpu(), time.monotonic()
            built = await builder.build(spec, lambda *_: None)
            answer = {
                "seconds": time.monotonic() - begun,
                "cpu": cpu() - used,
                "memory": peak(),
                "requests": registry.requests - requests,
                "reference": built.reference,
            }
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
