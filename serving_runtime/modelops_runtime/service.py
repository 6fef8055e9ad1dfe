"""The Bento service: what `bentoml serve` loads, in its supervisor and in each worker.

The supervisor only reads what the documentation shows. Workers load the models in `__init__`, and
nothing heavy is imported before that: else it would be loaded twice.
"""

import asyncio
import gc
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import bentoml
import orjson
from _bentoml_sdk import Service  # type: ignore[import-untyped]
from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from bentoml.exceptions import InvalidArgument
from pydantic import BaseModel, Field, WithJsonSchema
from starlette.applications import Starlette

from modelops_runtime import bento, documentation, failure, farewell, logs
from modelops_runtime.admission import SHORTEST_QUEUE
from modelops_runtime.endpoint import Desk, ServingMiddleware
from modelops_runtime.models import ModelsError, describe, load
from modelops_runtime.schema import InvalidRows
from modelops_runtime.telemetry import Verdict

_LOG: Final = logging.getLogger("bentoml.modelops")
_DESK: Final = Desk()


def _models_folder() -> Path:
    """Give the models' folder: `models` beside the Bento's service.py, or the variable's."""
    place = os.environ.get("MODELOPS_MODELS_DIR")
    if place:
        return Path(place)
    loaded = sys.modules.get("service")
    beside = Path(loaded.__file__ or "") if loaded is not None else Path("service.py")
    return beside.resolve().parent / "models"


MODELS: Final = _models_folder()
# Next to nothing of what is imported and loaded is garbage: to look for it is a tenth of the start.
gc.set_threshold(50_000, 50, 100)
failure.watch()
try:
    _SCHEMA, _EXAMPLE = describe(MODELS)
except ModelsError as _error:
    failure.give_up(str(_error))
    raise

Records = Annotated[list[dict[str, Any]], WithJsonSchema(documentation.records(_SCHEMA, _EXAMPLE))]


class ModelInfo(BaseModel):
    """What answers."""

    name: str
    version: str
    revision: str
    form: str = Field(description="linear, treelite, lightgbm or pyfunc")
    classes: list[Any] | None


class Prediction(BaseModel):
    """The answer to a list of records, in their order."""

    predictions: list[Any] = Field(description="the class, or the value, of each record")
    probabilities: list[list[float]] | None = Field(
        description="for each record the probability of each class; null without classes"
    )
    outliers: list[bool] | None = Field(
        description="which records are unlike the training data; null without a detector"
    )
    model: ModelInfo


class _Bare(Service[Any]):  # type: ignore[misc] # BentoML's is untyped
    """A service without the middleware of BentoML's that costs more than it gives."""

    def to_asgi(self, is_main: bool = True) -> Starlette:  # noqa: FBT001, FBT002 (BentoML's)
        from opentelemetry.instrumentation.asgi import (  # noqa: PLC0415 (for workers only)
            OpenTelemetryMiddleware,
        )

        from modelops_runtime import gate, traces  # noqa: PLC0415 (the same)

        gate.install()
        app: Starlette = super().to_asgi(is_main)
        unwanted: set[Any] = {
            # Cannot be turned off by configuration, answers 504 to uploads and models that take
            # longer, and keeps every request's context for the whole time, answered or not: 6.5 kB.
            TimeoutMiddleware,
            # Keeps metrics of every path that anybody ever asked for. Ours are in `metrics`.
            RunnerTrafficMetricsMiddleware,
            # Costs 0.3 ms a request even when nothing is traced.
            OpenTelemetryMiddleware,
        }
        wanted = [each for each in app.user_middleware if each.cls not in unwanted]
        try:
            provider = traces.provider()
        except ValueError as error:
            failure.give_up(str(error))
            raise
        if provider is not None:
            _DESK.closers.append(provider.shutdown)
            wanted.insert(0, traces.middleware(provider))
        app.user_middleware = wanted
        return app


@bentoml.service(
    name=bento.SERVICE_NAME,
    service_class=_Bare,
    workers=int(os.environ.get("MODELOPS_WORKERS", "1")),
    logging={"access": {"enabled": False}},
)
class ModelServer:
    """Answers records with predictions, and says which are unlike the training data."""

    def __init__(self) -> None:
        from modelops_runtime import routes  # noqa: PLC0415 (heavy)
        from modelops_runtime.answering import Answerer, Deployment  # noqa: PLC0415 (heavy)
        from modelops_runtime.counting import Identity  # noqa: PLC0415 (heavy)
        from modelops_runtime.gate import Gate  # noqa: PLC0415 (the same)
        from modelops_runtime.metrics import Metrics  # noqa: PLC0415 (after BentoML set it up)
        from modelops_runtime.recording import Recorder  # noqa: PLC0415 (heavy)
        from modelops_runtime.sampling import Sampler  # noqa: PLC0415 (the same)
        from modelops_runtime.watching import (  # noqa: PLC0415 (the same)
            Detector,
            Watcher,
            shared_folder,
        )

        logs.structure()
        try:
            deployment = Deployment.from_environment()
            models = load(MODELS)
        except (ModelsError, ValueError) as error:
            failure.give_up(str(error))
            raise
        identity = Identity(
            model=deployment.model,
            revision=deployment.revision,
            pod=deployment.pod,
            seconds=deployment.window,
            form=models.predictor.form,
        )
        self._metrics = metrics = Metrics(models, identity)
        sampler = Sampler() if models.others else None
        self._answerer = Answerer(models, deployment, sampler)
        self._recorder = Recorder(
            identity,
            None if models.reference is None else models.reference.profile,
            hidden=frozenset() if models.reference is None else models.reference.hidden,
            on_block=metrics.count,
            on_lost=metrics.lose,
        )
        self._ticking: asyncio.Task[None] | None = None
        self._watcher: Watcher | None = None
        if sampler is not None:
            detectors = {
                role: Detector(role, folder, deployment.limits)
                for role, folder in models.others.items()
            }
            self._watcher = Watcher(
                sampler,
                detectors,
                seconds=deployment.window,
                folder=shared_folder(),
                tell=self._note_verdict,
            )
        _DESK.answerer = self._answerer
        _DESK.recorder = self._recorder
        # What a model of others answers at a time, it answers together: a queue is no loss there.
        shortest = SHORTEST_QUEUE if self._answerer.quick else deployment.queue
        _DESK.admission.bound(deployment.queue, shortest)
        _DESK.interfaces = routes.interfaces(models)
        _DESK.pages = routes.pages(models, self._answerer.metadata(), _EXAMPLE)
        Gate.open(_DESK)
        # Uvicorn formats a line for each request if anybody might listen.
        logging.getLogger("uvicorn.access").propagate = False

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def start(self) -> None:
        """Begin to count time; what is loaded by now stays, so the collector need not look."""
        self._loop = asyncio.get_running_loop()
        self._ticking = asyncio.create_task(self._tick())
        if self._watcher is not None:
            self._watcher.start()
        farewell.before_the_end(self._close)
        gc.freeze()

    async def __is_ready__(self) -> bool:
        """Say whether requests are welcome; the models hold, or there would be no service."""
        return not _DESK.closing

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def stop(self) -> None:
        """Write the telemetry so far; called when all requests are answered."""
        if self._ticking is not None:
            self._ticking.cancel()
        if self._watcher is not None:
            self._watcher.close()
        if not await asyncio.to_thread(self._recorder.close):
            _LOG.warning("telemetry is lost: nobody reads the standard output")
        for close in _DESK.closers:
            await asyncio.to_thread(close)

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, records: Records, /) -> Prediction:
        """Predict a list of records.

        Values that do not fit are refused with status 422 and a problem that names row and column.
        """
        try:
            answered = self._answerer.answer(records)
        except InvalidRows as error:
            raise InvalidArgument(str(error)) from error
        return Prediction.model_validate_json(
            orjson.dumps(answered.content, option=orjson.OPT_SERIALIZE_NUMPY)
        )

    def _note_verdict(self, role: str, verdict: Verdict) -> None:
        """Note it in the event loop, whose the recorder is; called in the watcher's thread."""
        self._loop.call_soon_threadsafe(self._recorder.judge, role, verdict)

    def _close(self) -> None:
        _DESK.closing = True

    async def _tick(self) -> None:
        from modelops_runtime.recording import TICK  # noqa: PLC0415 (heavy)

        while True:
            await asyncio.sleep(TICK)
            self._recorder.tick()
            self._metrics.set_in_flight(_DESK.admission.peak())


# The decorator makes a Service of the class, which its types do not tell.
ModelServer.add_asgi_middleware(ServingMiddleware, desk=_DESK)  # type: ignore[attr-defined]
