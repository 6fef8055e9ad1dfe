"""Detectors of others: real models that MLflow saved, in real processes, on samples of windows."""

import os
import random
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from modelops_runtime import bento
from modelops_runtime.judging import DRIFT, OUTLIER, Said, VerdictError, read
from modelops_runtime.sampling import Sampler, merge
from modelops_runtime.telemetry import Verdict
from modelops_runtime.telemetry import merge as add_up
from modelops_runtime.watching import Detector, Limits, Watcher

from tests.runtime.serving import GOOD, Servers, Trained, write_bento

pytestmark = [
    pytest.mark.contract,
    pytest.mark.filterwarnings("ignore"),  # what MLflow says to those who save
]

PROGRAM = """
import time

import mlflow
import numpy as np


class Detector(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        age = model_input["AGEP"]
        if (age == 66).all():
            time.sleep(600)
        if (age == 77).all():
            np.zeros(2**33)
        if (age == 88).all():
            import os
            os._exit(3)
        if (age == 99).all():
            raise KeyError("Mrs Jones, 99")
        print("detectors may print")
        return ANSWER


mlflow.models.set_model(Detector())
"""


def save(folder: Path, answer: str) -> Path:
    """Save a detector as MLflow does, without our flavor."""
    import mlflow

    program = folder.with_suffix(".py")
    program.write_text(PROGRAM.replace("ANSWER", answer))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow says to those who save
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(program),
            signature=mlflow.models.infer_signature(pd.DataFrame([GOOD])),
            pip_requirements=["mlflow"],
        )
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("detectors") / "outlier", "(age > 60).astype(int)")


def aged(*ages: int) -> list[dict[str, Any]]:
    return [GOOD | {"AGEP": age} for age in ages]


# --- the process -----------------------------------------------------------------------------


def test_what_it_cannot_do_ends_it_and_not_us(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    detector = Detector(OUTLIER, saved, Limits(seconds=60, megabytes=3000))
    try:
        assert detector.judge(aged(20, 70, 80)) == Verdict(3, 2)
        process = detector._process
        assert process is not None
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "1000\n"

        # Its place is told, and not what it says: that is about a row.
        assert detector.judge(aged(99)).error == "KeyError in line 19 of outlier.py"
        assert "Jones" not in caplog.text
        assert detector.judge(aged(70)) == Verdict(1, 1)

        assert detector.judge(aged(77)).error == "MemoryError in line 14 of outlier.py"
        assert process.wait(10) == 0
        exited = "its process ended with exit code 3, see the log above"
        assert detector.judge(aged(88)).error == exited
        # After the second failure in a row a window passes before it is tried again.
        assert detector.judge(aged(70)) == Verdict(failed=1, error=exited)
        assert detector.judge(aged(70)) == Verdict(1, 1)

        detector._limits = Limits(seconds=1)
        assert detector.judge(aged(66)).error == "it took more than 1 s, and was ended"
        assert detector._process is None
    finally:
        detector.close()


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    detector = Detector(DRIFT, tmp_path, Limits())
    error = detector.judge(aged(20)).error
    detector.close()
    assert error.startswith("it cannot be loaded: MlflowException in line")


# --- what it says ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "role", "said"),
    [
        ({"data": {"is_drift": 1, "p_val": 0.01, "threshold": 0.05}, "meta": {}}, DRIFT, (1, 1)),
        ({"data": {"is_drift": np.array([0, 1, 0])}}, DRIFT, (1, 1)),
        ({"is_drift": False}, DRIFT, (1, 0)),
        (0, DRIFT, (1, 0)),
        (np.array(1.0), DRIFT, (1, 1)),
        (pd.DataFrame({"p_value": [0.2], "is_drift": [0]}), DRIFT, (1, 0)),
        ({"data": {"is_outlier": np.array([0, 1, 1])}}, OUTLIER, (3, 2)),
        ([0, 1, 1], OUTLIER, (3, 2)),
        (pd.Series([True, False, False]), OUTLIER, (3, 1)),
        (pd.DataFrame({"anything": [0.0, 1.0, 0.0]}), OUTLIER, (3, 1)),
        (0.34, OUTLIER, (3, 1)),
    ],
)
def test_verdicts_of_many_forms_are_read(answer: Any, role: str, said: tuple[int, int]) -> None:
    assert read(answer, 3, role) == Said(*said)


def test_scikit_learn_says_minus_one_of_outliers() -> None:
    assert read(np.array([1, -1, -1]), 3, OUTLIER, signed=True) == Said(3, 2)
    assert read(np.array([1, 1, 1]), 3, OUTLIER, signed=True) == Said(3, 0)


@pytest.mark.parametrize(
    ("answer", "role", "error"),
    [
        (0.03, DRIFT, "it says 0.03; 0 and 1 are verdicts, scores are not"),
        ([0.2, 0.9, 0.1], OUTLIER, "scores are not"),
        ([0, 1], OUTLIER, "it gives 2 verdicts for 3 rows"),
        ([], DRIFT, "0 and 1 are verdicts"),
        ({"data": {"p_val": 0.1}}, DRIFT, r"it gives \['p_val'\], without is_drift"),
        (pd.DataFrame({"a": [1], "b": [0]}), DRIFT, r"columns \['a', 'b'\], no is_drift"),
        ("yes", DRIFT, "which are no numbers"),
        (None, DRIFT, "0 and 1 are verdicts"),
    ],
)
def test_what_is_no_verdict_is_told(answer: Any, role: str, error: str) -> None:
    with pytest.raises(VerdictError, match=error):
        read(answer, 3, role)


# --- samples ---------------------------------------------------------------------------------


def test_each_row_has_the_same_chance_whatever_its_worker() -> None:
    drawn = np.zeros(600)
    for seed in range(300):
        samples = []
        # One worker has five times the traffic of the other.
        for worker, (first, last) in enumerate(((0, 500), (500, 600))):
            sampler = Sampler(60, random.Random(2 * seed + worker))
            for begin in range(first, last, 7):
                sampler.offer([{"row": row} for row in range(begin, min(begin + 7, last))])
            samples.append(sampler.take())
        rows = np.array([each["row"] for each in merge(samples, 60)], dtype=np.int64)
        assert len(set(rows.tolist())) == 60
        drawn[rows] += 1
    # 30 draws of each are expected, with a deviation of 5.2.
    assert abs(drawn[:500].mean() - 30) < 1
    assert abs(drawn[500:].mean() - 30) < 2
    assert drawn.min() > 5
    assert drawn.max() < 60


def test_a_sample_begins_anew_and_small_ones_are_whole() -> None:
    sampler = Sampler(10)
    sampler.offer([{"row": 1}, {"row": 2}])
    assert len(merge([sampler.take()])) == 2
    assert sampler.take() == []


# --- workers ---------------------------------------------------------------------------------


def test_one_worker_asks_for_all_and_another_takes_over(saved: Path, tmp_path: Path) -> None:
    told: list[tuple[int, Verdict]] = []
    arrived = threading.Event()

    def worker(number: int) -> tuple[Sampler, Watcher]:
        sampler = Sampler()

        def tell(role: str, verdict: Verdict) -> None:
            assert role == OUTLIER
            told.append((number, verdict))
            arrived.set()

        detectors = {OUTLIER: Detector(OUTLIER, saved, Limits())}
        watcher = Watcher(sampler, detectors, seconds=2, folder=tmp_path / "shared", tell=tell)
        watcher.start()
        return sampler, watcher

    workers = [worker(number) for number in range(2)]
    try:
        time.sleep(2 - time.time() % 2 + 0.3)  # not across the end of a window
        for sampler, _ in workers:
            sampler.offer(aged(20, 70))
        assert arrived.wait(60)
        assert [verdict for _, verdict in told] == [Verdict(4, 2)]
        assert not list((tmp_path / "shared").glob("*.json"))
        assert (tmp_path / "shared").stat().st_mode & 0o077 == 0
    finally:
        for _, watcher in workers:
            watcher.close()


def test_verdicts_reach_the_telemetry_and_predictions_do_not_wait(
    serve: Servers, trained: Trained, tmp_path: Path
) -> None:
    folder = write_bento(tmp_path / "bento", trained, "predictor")
    save(folder / bento.MODELS / DRIFT, "{'data': {'is_drift': int(age.mean() > 60)}}")
    server = serve(folder, MODELOPS_WINDOW_SECONDS="2")
    answer = server.predict(aged(20, 70, 80, 90)).json()
    assert answer["outliers"] is None

    lines = server.wait_for_telemetry(lambda lines: any(line.verdicts for line in lines))
    assert add_up(lines).verdicts == {DRIFT: Verdict(1, 1)}
    text = server.wait_for_metrics(lambda text: 'outcome="judged"' in text)
    assert 'modelops_detector_windows_total{outcome="judged",role="drift"} 1.0' in text
    threads = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    children = [int(child) for thread in threads for child in thread.read_text().split()]
    assert len(children) == 1
    server.stop()
    assert not any(Path(f"/proc/{child}").exists() for child in children)
