"""The Bento around the models: the files that `bentoml serve` wants, written without BentoML.

    /opt/bento/bento.yaml
    /opt/bento/README.md                     what it is, for people
    /opt/bento/src/service.py                imports the service from modelops_runtime
    /opt/bento/src/models/<role>/            the models, one folder for each role
    /opt/bento/src/models/runtime.json       how they are served, where it is not Auto

The models lie inside src: BentoML takes a folder `models` beside it for its own model store, does
not start when it finds other things there, and empties it on export. No imports beyond the
standard library and orjson, since the builder uses this module without BentoML.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import orjson

SERVICE_NAME: Final = "model-server"
MODELS: Final = "src/models"
"""The models' folder in the Bento; under it there is one for each role."""
PORT: Final = 3000
RUNTIME: Final = "runtime.json"
BENTOML_VERSION: Final = "1.4.39"
"""The oldest version that serves it."""
_EPOCH: Final = "1970-01-01T00:00:00+00:00"


class ServingRuntime(StrEnum):
    """How a predictor is served; detectors with our flavor run in-process whatever it says."""

    AUTO = "Auto"
    """From its fast form where it has one, else through MLflow."""
    FAST = "Fast"
    """From a compiled form, or not at all."""
    PYFUNC = "Pyfunc"
    """Through MLflow, with the libraries that the model asks for, even where it has a fast form."""


_SERVICE: Final = '''"""What `bentoml serve` loads."""

from modelops_runtime.service import ModelServer

__all__ = ["ModelServer"]
'''


def skeleton(
    *,
    name: str,
    version: str,
    python: str,
    models: Mapping[str, str],
    runtime: ServingRuntime = ServingRuntime.AUTO,
) -> dict[str, bytes]:
    """Give the Bento's files by their path, without the models: the same input, the same bytes.

    `models` says for each role which registered model it is, as "name/version"; `python` is the
    minor version of the image. Raises ValueError when there is no predictor among the models.
    """
    if "predictor" not in models:
        raise ValueError(f"a Bento needs a predictor; there is {', '.join(models) or 'nothing'}")
    return {
        "README.md": _readme(name, models),
        "bento.yaml": _description(name, version, python, models),
        "env/python/version.txt": f"{python}\n".encode(),
        "src/models/models.json": orjson.dumps(
            dict(models), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
        ),
        "src/service.py": _SERVICE.encode(),
        # Nothing is said of Auto, so that images made before there was a choice are the same.
        **(
            {}
            if runtime is ServingRuntime.AUTO
            else {f"{MODELS}/{RUNTIME}": orjson.dumps({"runtime": runtime})}
        ),
    }


def entrypoint() -> list[str]:
    """Give the command that serves the Bento in its image."""
    return [
        *("/opt/venv/bin/bentoml", "serve", "/opt/bento"),
        *("--host", "0.0.0.0", "--port", str(PORT)),  # noqa: S104 (a pod is reached from outside)
        # Longer than clients keep idle connections: theirs to close, or requests meet a closed one.
        *("--timeout-keep-alive", "120"),
    ]


def environment() -> dict[str, str]:
    """Give the variables that the image sets; the pod's own come from the operator."""
    return {
        "BENTOML_CONTAINERIZED": "true",  # a dead worker ends the pod instead of lingering
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": "/tmp/bentoml",  # noqa: S108 (the one folder that pods may write to)
        "HOME": "/tmp",  # noqa: S108 (the same)
        "MALLOC_ARENA_MAX": "2",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MODELOPS_LOG_FORMAT": "json",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _description(name: str, version: str, python: str, models: Mapping[str, str]) -> bytes:
    """Write bento.yaml; as JSON, which YAML includes."""
    service = {"name": SERVICE_NAME, "service": "", "models": [], "dependencies": [], "config": {}}
    image = {
        "base_image": "",
        "python_version": python,
        "commands": [],
        "python_requirements": "",
        "post_commands": [],
    }
    description = {
        "spec": 2,
        "name": _tag(name),
        "version": _tag(version),
        "service": "service:ModelServer",
        "bentoml_version": BENTOML_VERSION,
        "creation_time": _EPOCH,
        "labels": {f"modelops.dev/{role}": models[role] for role in sorted(models)},
        "models": [],
        "entry_service": SERVICE_NAME,
        "services": [service],
        "envs": [],
        "schema": {},
        "args": {},
        "image": image,
    }
    return orjson.dumps(description, option=orjson.OPT_INDENT_2)


def _tag(text: str) -> str:
    """Make a name or a version that BentoML accepts."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-") or "model"


def _readme(name: str, models: Mapping[str, str]) -> bytes:
    roles = "\n".join(f"- {role}: {models[role]}" for role in sorted(models))
    text = f"""# {name}

{roles}

`POST /predict` takes a JSON list of records and answers predictions, probabilities and, where there
is an outlier detector, which rows are unlike the training data. The Open Inference Protocol
(`/v2/models/...`) and MLflow's `/invocations` are there as well: see `/docs.json`, or `/` in a
browser, where the examples are rows of the model's own reference data.
"""
    return text.encode()
