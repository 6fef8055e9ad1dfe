"""Real traffic: the census of 2016 to 2018 against 2015, and only people over 60."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from modelops_operator.api.conditions import ConditionType
from modelops_operator.api.reasons import Reason
from modelops_operator.core.health.evaluate import evaluate
from modelops_operator.core.health.watch import OutlierReference
from modelops_operator.core.health.windows import History
from modelops_operator.core.state import Health
from modelops_runtime.outlier import Mahalanobis
from modelops_runtime.profile import Profile
from modelops_runtime.schema import Matrix, Schema
from modelops_training import outlier
from modelops_training.data import FEATURES, TARGET, employment
from modelops_training.inputs import describe, encode

from tests.health.builders import REVISION, START, WINDOW, counted, line, watch

pytestmark = pytest.mark.unit

SETTLE = timedelta(seconds=5)


@dataclass(frozen=True)
class Trained:
    """What a training leaves for the health."""

    schema: Schema
    profile: Profile
    detector: Mahalanobis


@pytest.fixture(scope="module")
def later() -> pd.DataFrame:
    return employment([2016, 2017, 2018]).sample(frac=1, random_state=7)


@pytest.fixture(scope="module")
def trained() -> Trained:
    frame = employment([2015])
    schema = describe(frame, TARGET, features=FEATURES)
    matrix = encode(frame, schema)
    detector = outlier.fit(matrix[::2], matrix[1::2], schema, quantile=outlier.QUANTILE)
    return Trained(schema, Profile.fit(matrix, schema), detector)


def told(trained: Trained, matrix: Matrix, rows: int) -> Iterator[tuple[datetime, Health]]:
    """Serve the rows, so many in a window, and give each window's verdict."""
    history = History(REVISION, settle=SETTLE)
    rate = OutlierReference.of(trained.detector.reference_rate, trained.profile.rows)
    watched = watch(drift=trained.profile, outliers=rate)
    for number in range(len(matrix) // rows):
        served = matrix[number * rows : (number + 1) * rows]
        now = START + (number + 1) * WINDOW + SETTLE
        counts = line(
            window=number,
            rows=rows,
            requests=rows,
            outliers=int(np.sum(trained.detector.flag(served))),
            edges=trained.profile.edges_hash,
            features=counted(trained.profile, served),
        )
        history.add([counts], now)
        yield now, evaluate(history, watched, now)


def reasons(health: Health) -> dict[str, tuple[str, str]]:
    return {found.type: (found.status, found.reason) for found in health.conditions}


def test_a_whole_day_of_the_last_year_is_quiet(trained: Trained, later: pd.DataFrame) -> None:
    matrix = encode(later[later["year"] == 2018], trained.schema)
    verdicts = list(told(trained, matrix, 170))
    assert verdicts[-1][0] - START > timedelta(hours=32)
    for _, health in verdicts[20:]:
        assert reasons(health)[ConditionType.DRIFT_DETECTED] == ("False", Reason.NO_DRIFT)


@pytest.mark.parametrize("rows", [1000, 5000])
@pytest.mark.parametrize("year", [2016, 2017, 2018])
def test_the_later_years_are_quiet(
    trained: Trained, later: pd.DataFrame, year: int, rows: int
) -> None:
    matrix = encode(later[later["year"] == year], trained.schema)[:60_000]
    for _, health in told(trained, matrix, rows):
        assert reasons(health) == {
            ConditionType.DRIFT_DETECTED: ("False", Reason.NO_DRIFT),
            ConditionType.OUTLIERS_DETECTED: ("False", Reason.OUTLIERS_NORMAL),
            ConditionType.MONITORING_HEALTHY: ("True", Reason.RECEIVING),
            ConditionType.SERVICE_HEALTHY: ("True", Reason.WITHIN_OBJECTIVES),
        }
        assert float(health.evidence["drift"]["value"]) < 0.1


@pytest.mark.parametrize("rows", [1000, 5000])
def test_people_over_sixty_are_alarmed_in_the_second_window(
    trained: Trained, later: pd.DataFrame, rows: int
) -> None:
    matrix = encode(later[later["AGEP"] > 60], trained.schema)[: 2 * rows]
    _, (_, health) = told(trained, matrix, rows)
    assert reasons(health)[ConditionType.DRIFT_DETECTED] == ("True", Reason.DRIFT_ALERT)
    drift = next(found for found in health.conditions if found.reason == Reason.DRIFT_ALERT)
    assert "AGEP (PSI " in drift.message
    assert health.evidence["drift"]["features"][0]["name"] == "AGEP"


def test_the_alarm_ends_when_everybody_is_back(trained: Trained, later: pd.DataFrame) -> None:
    everybody, old = later, later[later["AGEP"] > 60]
    frame = pd.concat([everybody[:2000], old[:3000], everybody[2000:4000]])
    verdicts = [
        reasons(health)[ConditionType.DRIFT_DETECTED][0]
        for _, health in told(trained, encode(frame, trained.schema), 1000)
    ]
    assert verdicts == ["False", "False", "False", "True", "True", "True", "False"]
