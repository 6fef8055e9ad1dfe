"""Small models in a Bento, and real `bentoml serve` processes around it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import lightgbm
import numpy as np
import orjson
import treelite
from modelops_runtime import bento, flavor
from modelops_runtime.outlier import Mahalanobis
from modelops_runtime.profile import Profile
from modelops_runtime.schema import Input, Output, Schema
from modelops_runtime.telemetry import Line

from tests.runtime.nursery import Forked, Nursery

PATIENCE = 120
NAMES = {
    "predictor": "main.ml.employment/12",
    "drift": "employment_drift/3",
    "outlier": "employment_outlier/7",
}
SCHEMA = Schema(
    (
        Input(name="AGEP", kind="number", integer=True, nullable=False, minimum=16, maximum=95),
        Input(name="WAGP", kind="number"),
        Input(name="SEX", kind="category", levels=("1", "2"), nullable=False),
        Input(name="MAR", kind="category", levels=("1", "2", "3", "4", "5")),
    ),
    Output(kind="classifier", name="employed", classes=("no", "yes")),
)
GOOD = {"AGEP": 34, "WAGP": 41000.0, "SEX": "1", "MAR": 5}


# --- models and the Bento around them --------------------------------------------------------


def make_records(count: int, seed: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [
        {
            "AGEP": int(random.integers(16, 96)),
            "WAGP": None if random.random() < 0.1 else round(float(random.lognormal(10, 1)), 2),
            "SEX": str(random.integers(1, 3)),
            "MAR": int(random.integers(1, 6)) if random.random() < 0.9 else "9",
        }
        for _ in range(count)
    ]


@dataclass(frozen=True)
class Trained:
    """Three small models and what they say."""

    booster: lightgbm.Booster
    detector: Mahalanobis
    profile: Profile
    rows: list[dict[str, Any]]

    def probabilities(self, rows: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
        return np.asarray(self.booster.predict(SCHEMA.encode(rows), num_threads=1))

    def files(self, role: str) -> dict[str, bytes]:
        matrix = SCHEMA.encode(self.rows)
        by_role: dict[str, tuple[dict[str, bytes], list[Any]]] = {
            "predictor": (
                {
                    flavor.TREELITE: treelite.frontend.from_lightgbm(
                        self.booster
                    ).serialize_bytes(),
                    flavor.LIGHTGBM: self.booster.model_to_string().encode(),
                },
                [[1 - p, p] for p in self.probabilities(self.rows).tolist()],
            ),
            "outlier": (
                {flavor.DETECTOR: self.detector.to_json()},
                self.detector.score(matrix).tolist(),
            ),
            "drift": (
                {flavor.PROFILE: self.profile.to_json()},
                self.profile.place(matrix).tolist(),
            ),
        }
        files, expected = by_role[role]
        parity = {"rows": self.rows, "expected": expected, "tolerance": 1e-6}
        return {
            **files,
            flavor.SCHEMA: SCHEMA.to_json(),
            flavor.PARITY: orjson.dumps(parity),
        }


def train_small() -> Trained:
    rows = make_records(2000, seed=1)
    matrix = SCHEMA.encode(rows)
    target = (matrix[:, 0] < 60) ^ (matrix[:, 2] > 0)
    options = {"objective": "binary", "verbose": -1, "num_threads": 1, "seed": 1}
    booster = lightgbm.train(options, lightgbm.Dataset(matrix, target), num_boost_round=20)
    filled = np.where(np.isnan(matrix), np.nanmean(matrix, axis=0), matrix)
    detector = Mahalanobis(
        mean=filled.mean(axis=0),
        precision=np.linalg.inv(np.cov(filled.T) + np.eye(4) * 1e-6).astype(np.float64),
        impute=filled.mean(axis=0),
        unseen=np.array([np.nan, np.nan, 0.0, 2.0]),
        threshold=25.0,
        reference_rate=0.01,
    )
    scores = np.asarray(booster.predict(matrix))
    return Trained(booster, detector, Profile.fit(matrix, SCHEMA, scores=scores), rows[:200])


Changes = Mapping[str, Mapping[str, bytes]]


def write_bento(
    folder: Path, trained: Trained, *roles: str, changes: Changes | None = None
) -> Path:
    """Make a Bento of these models; `changes` replaces files by role and name."""
    names = {role: NAMES[role] for role in roles}
    files = bento.skeleton(name="employment", version="12", python="3.11", models=names)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    kinds = {"predictor": "treelite", "outlier": "mahalanobis", "drift": "profile"}
    for role in roles:
        data = trained.files(role) | dict((changes or {}).get(role, {}))
        flavor.write_data(folder / bento.MODELS / role, role, kinds[role], data)
    return folder


# --- processes -------------------------------------------------------------------------------


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[bytes] | Forked
    port: int
    log: Path
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def client(self) -> httpx.Client:
        if not self.clients:
            self.clients.append(
                httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE)
            )
        return self.clients[0]

    def predict(self, content: object) -> httpx.Response:
        return self.client.post("/predict", content=orjson.dumps(content))

    def wait_until_ready(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=2).is_success:
                    return
            time.sleep(0.05)
        raise TimeoutError(self.log.read_text())

    def hang_up(self) -> None:
        for client in self.clients:
            client.close()
        self.clients.clear()

    def stop(self) -> int:
        self.hang_up()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def telemetry(self) -> list[Line]:
        lines = [Line.parse(each) for each in self.log.read_bytes().splitlines(keepends=True)]
        return [each for each in lines if each is not None]

    def wait_for_metrics(self, enough: Callable[[str], bool]) -> str:
        """Scrape until the numbers of the last second are in."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if enough(text := self.client.get("/metrics").text):
                return text
            time.sleep(0.05)
        raise TimeoutError(text)

    def wait_for_telemetry(self, enough: Callable[[list[Line]], bool]) -> list[Line]:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if enough(lines := self.telemetry()):
                return lines
            time.sleep(0.05)
        raise TimeoutError(self.log.read_text())


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _supervised(
    folder: Path, port: int, environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    program = str(Path(sys.executable).with_name("bentoml"))
    arguments = bento.entrypoint()[1:]
    arguments[arguments.index("/opt/bento")] = str(folder)
    arguments[arguments.index("0.0.0.0")] = "127.0.0.1"
    arguments[arguments.index(str(bento.PORT))] = str(port)
    with log.open("wb") as output:
        return subprocess.Popen(
            [program, *arguments], stdout=output, stderr=output, env=environment
        )


class Servers:
    """Starts Bentos as their image does, each in an environment of its own.

    A real `bentoml serve` where they are `supervised`, else BentoML's worker alone.
    """

    def __init__(self, make_folder: Callable[[str], Path], nursery: Nursery) -> None:
        self._make_folder = make_folder
        self._nursery = nursery
        self._running: list[Served] = []

    def __call__(
        self,
        folder: Path,
        *,
        supervised: bool = False,
        ready: bool = True,
        stdout: int | None = None,
        **variables: str,
    ) -> Served:
        home = self._make_folder("home")
        port, log = _free_port(), home / "log"
        process: subprocess.Popen[bytes] | Forked
        environment = bento.environment() | {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(home),
            "BENTOML_HOME": str(home / "bentoml"),
            "MODELOPS_DEPLOYMENT": "staging/employment",
            "MODELOPS_REVISION": "4f1c0a9b2d",
            "MODELOPS_POD": "employment-6d8f-x2x",
            "MODELOPS_WINDOW_SECONDS": "3600",
            **variables,
        }
        if supervised:
            process = _supervised(folder, port, environment, log)
        else:
            process = self._nursery.fork(folder, port, environment, stdout, log)
        served = Served(process, port, log)
        self._running.append(served)
        if ready:
            served.wait_until_ready()
        return served

    def stop(self) -> None:
        """Stop those that still run."""
        for served in self._running:
            served.hang_up()
            if served.process.poll() is None:
                served.stop()
