"""The Bento from the outside: `bentoml serve` and its workers, spoken to over HTTP."""

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import lightgbm
import numpy as np
import orjson
import pytest
import treelite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelops_runtime import flavor
from modelops_runtime.telemetry import LONGEST_LINE, merge

from tests.runtime.serving import (
    GOOD,
    NAMES,
    PATIENCE,
    SCHEMA,
    Served,
    Servers,
    Trained,
    make_records,
    write_bento,
)

pytestmark = pytest.mark.contract


# --- answers ---------------------------------------------------------------------------------


def test_answers_as_the_models_do(served: Served, trained: Trained) -> None:
    rows = [*make_records(500, seed=2), GOOD | {"AGEP": 10**6}, GOOD | {"WAGP": 1e12}]
    response = served.predict(rows)
    assert response.status_code == 200
    answer = response.json()
    known = trained.probabilities(rows)
    np.testing.assert_allclose(np.array(answer["probabilities"])[:, 1], known, atol=1e-9)
    assert answer["predictions"] == np.where(known > 0.5, "yes", "no").tolist()
    flags = trained.detector.flag(SCHEMA.encode(rows)).tolist()
    assert answer["outliers"] == flags
    assert flags[-2:] == [True, True]
    assert not all(flags)


def test_says_what_answers(served: Served) -> None:
    model = served.predict([GOOD]).json()["model"]
    assert model["name"] == "main.ml.employment"
    assert model["version"] == "12"
    assert model["revision"] == "4f1c0a9b2d"
    assert model["form"] == "treelite"
    assert model["classes"] == ["no", "yes"]


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain", None])
def test_curl_without_a_media_type_will_do(served: Served, media_type: str | None) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    content = orjson.dumps([GOOD])
    assert served.client.post("/predict", content=content, headers=headers).status_code == 200


def test_takes_rows_by_name_as_well(served: Served) -> None:
    named, plain = served.predict({"rows": [GOOD]}), served.predict([GOOD])
    assert named.status_code == 200
    assert named.json() == plain.json()


def test_no_rows_are_answered_with_nothing(served: Served) -> None:
    answer = served.predict([]).json()
    assert (answer["predictions"], answer["probabilities"], answer["outliers"]) == ([], [], [])


def test_a_large_batch_is_answered_and_holds_up_nobody(served: Served) -> None:
    rows = [GOOD] * 10_000
    slowest = 0.0
    results: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: results.append(served.predict(rows)))
    thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=PATIENCE) as client:
        while thread.is_alive():
            begun = time.monotonic()
            assert client.get("/livez").status_code == 200
            slowest = max(slowest, time.monotonic() - begun)
    thread.join()
    assert len(results[0].json()["predictions"]) == 10_000
    assert slowest < 5


def test_a_slow_upload_is_answered(served: Served) -> None:
    content = orjson.dumps([GOOD])
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content[:5])
        time.sleep(3)
        connection.sendall(content[5:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"[NaN]", 400, "JSON"),
        (b'[{"AGEP": 1e999}]', 400, "JSON"),
        (b'[{"AGEP": "\xff"}]', 400, "JSON"),
        (b"[" * 5000 + b"]" * 5000, 400, "JSON"),
        (b"null", 422, "a list of records"),
        (b"3", 422, "a list of records"),
        (b'"x"', 422, "a list of records"),
        (b"{}", 422, "a list of records"),
        (b'{"rows": 3}', 422, "a list of records"),
        (b'{"rows": [], "more": 1}', 422, "a list of records"),
        (orjson.dumps(GOOD), 422, "a list of records"),
        (b"[3]", 422, "an object with the fields AGEP, WAGP, SEX, MAR"),
        (b"[[]]", 422, "an object with the fields"),
        (b"[null]", 422, "an object with the fields"),
        (b"[{}]", 422, "row 0, AGEP: got null, expected a whole number"),
        (orjson.dumps([GOOD | {"AGEP": "34"}]), 422, 'row 0, AGEP: got "34", expected a whole'),
        (orjson.dumps([GOOD | {"AGEP": 34.5}]), 422, "AGEP: got 34.5, expected a whole number"),
        (orjson.dumps([GOOD, GOOD | {"AGEP": True}]), 422, "row 1, AGEP: got true"),
        (orjson.dumps([GOOD | {"AGEP": 2**60}]), 422, "AGEP: got 1152921504606846976"),
        (orjson.dumps([GOOD | {"SEX": None}]), 422, "SEX: got null, expected a category"),
        (orjson.dumps([GOOD | {"SEX": ["1"]}]), 422, 'SEX: got ["1"]'),
        (orjson.dumps([GOOD | {"AGE": 34}]), 422, "AGE: got 34, expected no such field"),
    ],
)
def test_refuses(served: Served, body: bytes, status: int, said: str) -> None:
    response = served.client.post("/predict", content=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert said in f"{problem['title']} {problem['detail']}"


def test_names_a_handful_of_values_and_counts_the_rest(served: Served) -> None:
    problem = served.predict([GOOD | {"AGEP": "old", "WAGP": []}] * 40).json()
    assert problem["count"] == 80
    assert len(problem["problems"]) == 5
    first = problem["problems"][0]
    assert (first["row"], first["column"], first["value"]) == (0, "AGEP", "old")
    assert "a whole number" in first["expected"]


def test_a_body_that_is_too_large_is_refused(served: Served) -> None:
    response = served.client.post("/predict", content=b" " * (65 * 2**20))
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


def test_other_methods_are_refused(served: Served) -> None:
    response = served.client.get("/predict")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


def test_a_compressed_body_is_refused(served: Served) -> None:
    headers = {"content-encoding": "br"}
    response = served.client.post("/predict", content=b"x", headers=headers)
    assert response.status_code == 415


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=6)
    | st.sampled_from(["1", "2", 1, 34, 2.0]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)
records = st.fixed_dictionaries({}, optional=dict.fromkeys((*SCHEMA.names, "else"), values))
fuzz = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@fuzz
@given(st.lists(records | st.just(GOOD), max_size=4) | values)
def test_whatever_the_json_it_is_answered_or_refused(served: Served, content: object) -> None:
    response = served.predict(content)
    assert response.status_code in {200, 422}
    if response.status_code == 200:
        rows = content["rows"] if isinstance(content, dict) else content
        assert len(response.json()["predictions"]) == len(rows)  # type: ignore[arg-type]
    else:
        assert response.headers["content-type"] == "application/problem+json"


@fuzz
@given(st.binary(max_size=60))
def test_whatever_the_bytes_they_are_answered_or_refused(served: Served, body: bytes) -> None:
    response = served.client.post("/predict", content=body)
    assert response.status_code in {200, 400, 422}


# --- around the predictions ------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_is_well(served: Served, path: str) -> None:
    assert served.client.get(path).status_code == 200


def test_swagger_is_at_the_root_and_needs_no_other_server(served: Served) -> None:
    page = served.client.get("/")
    assert page.status_code == 200
    assert "swagger" in page.text
    assert served.client.get("/static_content/swagger-ui-bundle.js").status_code == 200
    assert "https://" not in page.text.replace("https://docs", "").partition("<script")[2]


def test_the_document_is_of_this_version(served: Served) -> None:
    document = served.client.get("/docs.json").json()
    assert (document["info"]["title"], document["info"]["version"]) == ("main.ml.employment", "12")


def test_metadata_tells_what_is_served(served: Served) -> None:
    metadata = served.client.get("/metadata").json()
    assert metadata["model"]["name"] == "main.ml.employment"
    assert metadata["model"]["form"] == "treelite"
    assert metadata["models"] == NAMES
    assert [each["name"] for each in metadata["inputs"]] == list(SCHEMA.names)


def test_metrics_name_model_version_and_form(served: Served) -> None:
    served.predict([GOOD])
    text = served.client.get("/metrics").text
    (info,) = [line for line in text.splitlines() if line.startswith("modelops_model_info{")]
    assert 'name="main.ml.employment"' in info
    assert 'version="12"' in info
    assert 'form="treelite"' in info
    labels = 'form="treelite",model="main.ml.employment",version="12"'
    for name in ("rows_total", "outliers_total", "request_seconds_count"):
        assert f"modelops_{name}{{{labels}}}" in text
    outcomes = ("answered", "refused", "overloaded", "failed")
    for outcome in outcomes:
        found = f'form="treelite",model="main.ml.employment",outcome="{outcome}",version="12"'
        assert f"modelops_requests_total{{{found}}}" in text
    assert "modelops_requests_in_flight" in text


# --- telemetry -------------------------------------------------------------------------------


class Caller(threading.Thread):
    """A client that keeps its connection, as Go's and Java's do, until it is told to leave."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.answered = 0
        self.failure = ""
        self.told = False

    def run(self) -> None:
        body = orjson.dumps([GOOD])
        while not self.told:
            try:
                self._connection.request("POST", "/predict", body)
                response = self._connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                self.failure = repr(error)
                return
            if response.status != 200:
                self.failure = str(response.status)
                return
            self.answered += 1
            self.told = response.headers.get("connection", "") == "close"
            time.sleep(0.002)


@pytest.fixture
def whole(serve: Servers, trained: Trained, tmp_path: Path) -> Callable[..., Served]:
    """Start all three models in a server of one's own."""
    folder = write_bento(tmp_path / "bento", trained, "predictor", "drift", "outlier")
    return lambda **variables: serve(folder, **variables)


def test_several_workers_count_all_and_lose_nothing_when_told_to_end(
    serve: Servers, trained: Trained, tmp_path: Path
) -> None:
    folder = write_bento(tmp_path / "bento", trained, "predictor", "drift", "outlier")
    server = serve(folder, supervised=True, MODELOPS_WORKERS="2", MODELOPS_WINDOW_SECONDS="2")
    server.wait_for_telemetry(lambda lines: len({line.worker for line in lines}) == 2)
    rows = make_records(3000, seed=3) + [GOOD | {"AGEP": 10**6}] * 5
    batches = [rows[begin : begin + 50] for begin in range(0, len(rows), 50)]
    url = f"http://127.0.0.1:{server.port}"
    for batch in batches:
        # A connection each, so that both workers get some.
        assert httpx.post(f"{url}/predict", json=batch).status_code == 200
    for _ in range(3):
        assert server.predict([{}]).status_code == 422
    callers = [Caller(server.port) for _ in range(8)]
    for caller in callers:
        caller.start()
    time.sleep(1)
    with httpx.Client(base_url=url, timeout=PATIENCE) as client:
        assert client.get("/readyz").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        for caller in callers:
            caller.join()
        assert client.get("/readyz").status_code == 503
    server.hang_up()
    assert server.process.wait(PATIENCE) == 0
    assert [caller.failure for caller in callers] == [""] * 8
    assert all(caller.told for caller in callers)

    lines = server.telemetry()
    for worker in {line.worker for line in lines}:
        starts = sorted({line.start.timestamp() for line in lines if line.worker == worker})
        assert starts == [starts[0] + 2 * number for number in range(len(starts))]
        assert starts[0] % 2 == 0
    assert any(line.requests == line.rows == 0 for line in lines)
    texts = [each for each in server.log.read_bytes().splitlines() if b'"mdw1"' in each]
    assert all(len(each) < LONGEST_LINE and each.startswith(b"{") for each in texts)

    total = merge(lines)
    called = sum(caller.answered for caller in callers)
    assert called > 0
    matrix = SCHEMA.encode([*rows, *[GOOD] * called])
    assert (total.model, total.revision) == ("staging/employment", "4f1c0a9b2d")
    assert (total.pod, total.form) == ("employment-6d8f-x2x", "treelite")
    assert total.edges == trained.profile.edges_hash
    assert total.rows == len(matrix)
    assert total.requests == len(batches) + 3 + called == sum(n for _, n in total.latency)
    assert total.errors == {"4xx": 3}
    assert total.outliers == int(trained.detector.flag(matrix).sum()) >= 5
    assert [each.histogram for each in total.features] == trained.profile.count(matrix)
    assert trained.profile.scores is not None
    known = np.asarray(trained.booster.predict(matrix, num_threads=1))
    assert total.scores == trained.profile.scores.count(known)


def test_a_broken_stdout_stops_no_prediction(whole: Callable[..., Served]) -> None:
    reader, writer = os.pipe()
    server = whole(stdout=writer, MODELOPS_WINDOW_SECONDS="1")
    os.close(writer)
    os.close(reader)
    end = time.monotonic() + 3.5
    while time.monotonic() < end:
        assert server.predict([GOOD]).status_code == 200
        time.sleep(0.1)
    assert server.process.poll() is None


def test_a_stdout_that_nobody_reads_stops_no_prediction(whole: Callable[..., Served]) -> None:
    reader, writer = os.pipe()
    try:
        server = whole(stdout=writer, MODELOPS_WINDOW_SECONDS="1")
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            assert server.predict([GOOD]).status_code == 200
            time.sleep(0.1)
    finally:
        os.close(reader)
        os.close(writer)


# --- forms -----------------------------------------------------------------------------------


def test_a_model_that_does_not_answer_as_expected_is_never_ready(
    serve: Servers, trained: Trained, tmp_path: Path
) -> None:
    parity = orjson.loads(trained.files("predictor")[flavor.PARITY])
    parity["expected"][3] = [0.25, 0.75]
    changes = {"predictor": {flavor.PARITY: orjson.dumps(parity)}}
    folder = write_bento(tmp_path, trained, "predictor", changes=changes)
    server = serve(folder, supervised=True, ready=False)
    ready = False
    while server.process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            ready |= httpx.get(f"http://127.0.0.1:{server.port}/readyz", timeout=1).is_success
        time.sleep(0.05)
    assert not ready
    assert server.process.returncode not in {0, None}
    last = server.log.read_text().strip().splitlines()[-1]
    assert NAMES["predictor"] in last
    assert "expected [0.25, 0.75]" in last


def test_a_predictor_alone_falls_back_to_its_native_form_and_says_so(
    serve: Servers, trained: Trained, tmp_path: Path
) -> None:
    matrix = SCHEMA.encode(trained.rows)
    other = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1},
        lightgbm.Dataset(matrix, matrix[:, 0] > 40),
        num_boost_round=2,
    )
    wrong = treelite.frontend.from_lightgbm(other).serialize_bytes()
    changes = {"predictor": {flavor.TREELITE: wrong}}
    server = serve(write_bento(tmp_path, trained, "predictor", changes=changes))
    answer = server.predict(trained.rows).json()
    known = trained.probabilities(trained.rows)
    np.testing.assert_allclose(np.array(answer["probabilities"])[:, 1], known, atol=1e-9)
    assert answer["model"]["form"] == "lightgbm"
    metadata = server.client.get("/metadata").json()
    assert metadata["model"]["form"] == "lightgbm"
    assert "row" in metadata["rejected"]["treelite"]
    assert 'form="lightgbm"' in server.client.get("/metrics").text
    assert "treelite" in server.log.read_text()
    assert answer["outliers"] is None
    server.stop()
    (line,) = server.telemetry()
    assert (line.form, line.rows, line.requests, line.outliers) == ("lightgbm", 200, 1, 0)
    assert (line.edges, line.features, line.scores) == ("", (), None)
