"""The ways to serve a model that are compared, each in an environment of its own."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import orjson
from modelops_operator.builder.images import collect
from modelops_runtime import bento

from benchmarks import load
from benchmarks.artifacts import Artifacts, Records
from benchmarks.processes import Server, environment, running

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "benchmarks" / "peers"
OURS, PYFUNC, MLFLOW = "ours", "ours as pyfunc", "mlflow models serve"
SEED, THIN = "seed's way", "thin ONNX service"
BODIES = 64
"""Different requests that are sent in turn."""


def pinned(*names: str) -> list[str]:
    """Pin libraries to the versions of our own lock."""
    return [f"{name}=={version(name)}" for name in names]


LIBRARIES = pinned("lightgbm", "pandas", "scikit-learn")
MODEL = [*LIBRARIES, *pinned("mlflow")]
WEB = pinned("httptools", "numpy", "orjson", "starlette", "uvicorn", "uvloop")
ONNX = "onnxruntime==1.32.0"
CONVERTER = [
    *("onnx==1.23.2", "onnxmltools==1.16.0", "skl2onnx==1.20.0"),
    *pinned("lightgbm", "packaging", "pandas", "scikit-learn"),
]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to serve a model."""

    name: str
    home: Path
    """Its environment."""
    command: Callable[[Artifacts], list[str]]
    """The program in `home` with its arguments; `{port}` stands for the port."""
    ready: str
    """The path that answers once it is."""
    path: str
    body: Callable[[Records], object]
    """Writes records as it takes them."""
    variables: Mapping[str, str]

    @contextlib.contextmanager
    def serving(self, model: Artifacts, **more: str) -> Iterator[Server]:
        """Start it in a folder of its own, with more variables."""
        program, *arguments = self.command(model)
        command = [str(self.home / "bin" / program), *arguments]
        with tempfile.TemporaryDirectory(prefix="bench-serving-") as home:
            path = f"{self.home / 'bin'}:/usr/bin:/bin"
            place = {
                "PATH": path,
                "HOME": home,
                "TMPDIR": home,
                "BENTOML_HOME": f"{home}/bentoml",
                "ARTIFACTS": str(model.folder),
            }
            log = Path(home, "log")
            with running(command, log, self.ready, {**self.variables, **place, **more}) as server:
                yield server

    def requests(self, model: Artifacts, rows: int) -> list[bytes]:
        """Write what it is asked: different rows each time."""
        bodies = [
            self.body(
                [model.rows[(number * rows + place) % len(model.rows)] for place in range(rows)]
            )
            for number in range(BODIES)
        ]
        return [load.request(self.path, orjson.dumps(body)) for body in bodies]


def ours(scratch: Path) -> tuple[Way, Way]:
    """Serve the Bento as its image does, with the image's libraries and nothing else.

    The second way has no fast form, and the libraries that the model asks for.
    """
    wheels = scratch / "wheels"
    sources = collect(ROOT, wheels)
    lock = wheels / "pylock.toml"
    lock.write_bytes(sources.runtime_lock)

    def command(folder: Path) -> list[str]:
        arguments = bento.entrypoint()
        replaced = {
            arguments[0]: Path(arguments[0]).name,
            "/opt/bento": str(folder),
            "0.0.0.0": "127.0.0.1",
            str(bento.PORT): "{port}",
        }
        return [replaced.get(each, each) for each in arguments]

    fast = Way(
        name=OURS,
        home=environment(lock=lock, wheel=sources.runtime),
        command=lambda model: command(model.bento),
        ready="/readyz",
        path="/predict",
        body=list,
        variables=bento.environment(),
    )
    # The builder takes MLflow's client where a model asks for MLflow, and the extra `fast` for the
    # lean image alone.
    asked = [*LIBRARIES, *pinned("mlflow-skinny")]
    slow = replace(
        fast,
        name=PYFUNC,
        home=environment(*asked, lock=lock, wheel=sources.runtime, without=["uvloop"]),
        command=lambda model: command(model.fallback),
    )
    return fast, slow


def mlflow() -> Way:
    """Serve with MLflow's defaults, in the environment that is there."""
    local = ("--env-manager", "local", "--host", "127.0.0.1", "--port", "{port}")
    return Way(
        name=MLFLOW,
        home=environment(*MODEL),
        command=lambda model: ["mlflow", "models", "serve", "-m", f"{model.folder}/model", *local],
        ready="/ping",
        path="/invocations",
        body=lambda records: {"dataframe_records": records},
        variables={"MLFLOW_DISABLE_TELEMETRY": "true"},
    )


def bentoml(name: str, service: str) -> Way:
    """Serve one of `peers` with BentoML's defaults."""
    here = ("--working-dir", str(PEERS), "--host", "127.0.0.1", "--port", "{port}")
    return Way(
        name=name,
        home=environment(*MODEL, *pinned("bentoml")),
        command=lambda model: ["bentoml", "serve", service, *here],  # noqa: ARG005  # its folder is told
        ready="/readyz",
        path="/predict",
        body=lambda records: {"records": records},
        variables={"BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true"},
    )


def thin() -> Way:
    """Serve with Starlette and ONNX Runtime, by hand."""
    fast = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--port", "{port}")
    return Way(
        name=THIN,
        home=environment(*WEB, ONNX),
        command=lambda model: ["uvicorn", "thin:app", "--app-dir", str(PEERS), *fast],  # noqa: ARG005  # the same
        ready="/healthz",
        path="/predict",
        body=list,
        variables={"OMP_NUM_THREADS": "1"},
    )


def all_ways(scratch: Path) -> list[Way]:
    """Make them all; ours comes first."""
    return [
        *ours(scratch),
        mlflow(),
        bentoml("BentoML service", "plain:Plain"),
        bentoml(SEED, "seed:Seed"),
        thin(),
    ]
