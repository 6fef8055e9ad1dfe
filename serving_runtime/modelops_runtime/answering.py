"""From records to an answer: encode, predict, flag outliers, and note it all for telemetry."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from modelops_runtime.admission import LONGEST_QUEUE
from modelops_runtime.models import Models
from modelops_runtime.predictors import PyfuncPredictor, Rows, RowsRefused
from modelops_runtime.sampling import Sampler
from modelops_runtime.schema import Matrix, Schema
from modelops_runtime.watching import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What the pod was told about itself."""

    model: str
    """namespace/name of the ModelDeployment."""
    revision: str
    pod: str
    window: int
    """Length of the windows of telemetry in seconds."""
    queue: int = LONGEST_QUEUE
    """Requests that may wait in each worker."""
    limits: Limits = field(default_factory=Limits)
    """Of detectors of others."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Deployment":
        """Read the variables that the operator sets. Raises ValueError for bad numbers."""
        return cls(
            model=environment.get("MODELOPS_DEPLOYMENT", "local/model"),
            revision=environment.get("MODELOPS_REVISION", "local"),
            pod=environment.get("MODELOPS_POD", os.uname().nodename),
            window=_number(environment, "MODELOPS_WINDOW_SECONDS", 300, most=86400),
            queue=_number(environment, "MODELOPS_QUEUE", LONGEST_QUEUE, most=10_000),
            limits=Limits(
                seconds=_number(environment, "MODELOPS_DETECTOR_SECONDS", 60, most=86400),
                megabytes=_number(environment, "MODELOPS_DETECTOR_MEGABYTES", 2048, most=2**20),
            ),
        )


def _number(environment: Mapping[str, str], name: str, default: int, *, most: int) -> int:
    text = environment.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise ValueError(f"{name} is {text!r}; it has to be a whole number from 1 to {most}")
    return int(text)


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What came out for one request."""

    content: dict[str, Any]
    """The answer, ready for orjson with `OPT_SERIALIZE_NUMPY`."""
    rows: int
    outliers: int
    matrix: Matrix | None
    """Encoded for the reference profile; None without one."""
    scores: NDArray[np.float64] | None
    columns: tuple[str, ...] | None
    """Names of what the model's `python_function` gives for a row, if that is a frame."""


class Answerer:
    """Answers requests; several threads may use it."""

    def __init__(
        self, models: Models, deployment: Deployment, sampler: Sampler | None = None
    ) -> None:
        self._models = models
        self._sampler = sampler
        self.quick = models.predictor.form != PyfuncPredictor.form
        """A few rows take no time to speak of. A model of others may take as long as it likes."""
        self.model: Mapping[str, Any] = {
            "name": models.name,
            "version": models.version,
            "revision": deployment.revision,
            "form": models.predictor.form,
            "classes": models.schema.output.classes,
        }
        """What answers, as each answer tells it."""
        self._model = orjson.Fragment(orjson.dumps(self.model))

    def metadata(self) -> bytes:
        """Write what is served, for people and for `GET /metadata`."""
        models = self._models
        inputs = orjson.loads(models.schema.to_json())["inputs"]
        return orjson.dumps(
            {
                "model": self.model,
                "models": models.names,
                "runtime": version("modelops-runtime"),
                "rejected": models.rejected,
                "inputs": inputs,
                "output": {"name": models.schema.output.name, "kind": models.schema.output.kind},
            }
        )

    def answer(self, rows: Rows) -> Answered:
        """Answer records.

        Raises InvalidRows for rows that do not fit the schema, RowsRefused for those that the model
        does not take, or has no finite answer to.
        """
        models = self._models
        matrix = models.schema.encode(rows)
        if not rows:
            return Answered(self._nothing(), 0, 0, None, None, None)
        answer = models.predictor.predict(rows, matrix)
        if answer.scores is not None and not (finite := np.isfinite(answer.scores)).all():
            row = int(finite.argmin())
            raise RowsRefused(
                f"row {row}: it answers {answer.predictions[row]}, which JSON cannot tell: are"
                " its inputs far from all that it was trained on?"
            )
        if self._sampler is not None:
            self._sampler.offer(rows)
        flags = None
        if models.detector is not None:
            flags = models.detector.model.flag(self._for(models.detector.schema, rows, matrix))
        content = {
            "predictions": answer.predictions,
            "probabilities": answer.probabilities,
            "outliers": flags,
            "model": self._model,
        }
        reference = models.reference
        return Answered(
            content,
            rows=len(rows),
            outliers=0 if flags is None else int(flags.sum()),
            matrix=None if reference is None else self._for(reference.schema, rows, matrix),
            scores=answer.scores,
            columns=answer.columns,
        )

    def _nothing(self) -> dict[str, Any]:
        classifier = self._models.schema.output.classes is not None
        return {
            "predictions": [],
            "probabilities": [] if classifier else None,
            "outliers": None if self._models.detector is None else [],
            "model": self._model,
        }

    def _for(self, schema: Schema, rows: Rows, matrix: Matrix) -> Matrix:
        """Give the rows as `schema` encodes them; they were encoded by the predictor's already."""
        return matrix if schema is self._models.schema else schema.encode(rows)
