import json
from itertools import islice

import pytest
from modelops_training.data import CATEGORIES, FEATURES, FILE, YEARS, employment, records

pytestmark = pytest.mark.unit


def test_all_rows_of_all_years_are_there() -> None:
    frame = employment()
    counts = frame["year"].value_counts().sort_index().to_dict()
    assert counts == {2015: 68_785, 2016: 69_126, 2017: 69_635, 2018: 70_131}
    assert list(frame.columns) == [*FEATURES, "employed", "year"]
    assert not frame.isna().any().any()
    assert FILE.stat().st_size < 2_000_000


def test_categories_are_text_and_ages_are_numbers() -> None:
    frame = employment([2016])
    assert frame["AGEP"].dtype == "int64"
    assert set(frame["MIL"].unique()) == {"0", "1", "2", "3", "4"}
    assert frame[list(CATEGORIES)].map(lambda value: type(value) is str).all().all()


def test_a_year_without_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no data for \[2019\]; there are 2015 to 2018"):
        employment([2018, 2019])


def test_records_are_json_of_the_people_asked_for() -> None:
    rows = list(records(YEARS, "AGEP > 60", limit=50))
    assert len(rows) == 50
    assert json.loads(json.dumps(rows)) == rows
    assert all(list(row) == list(FEATURES) and row["AGEP"] > 60 for row in rows)  # type: ignore[operator]


def test_records_come_in_an_order_of_their_seed() -> None:
    one, same, other = (list(islice(records(2017, seed=seed), 20)) for seed in (1, 1, 2))
    assert one == same != other
    assert sum(1 for _ in records(2017, "AGEP == 30")) == (employment([2017])["AGEP"] == 30).sum()
