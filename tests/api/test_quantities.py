"""Durations, decimals and quantities."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_operator.api.quantities import (
    format_decimal,
    format_duration,
    parse_decimal,
    parse_duration,
    parse_quantity,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("30s", 30), ("1h30m", 5400), ("1h1m1s", 3661), ("250ms", 0.25), ("0s", 0)],
)
def test_reads_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "-5m", "5m1h", "1.5h", "5m5m", "5M", "٣s"])
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write it like 30s, 5m or 1h30m"):
        parse_duration(text)


@given(st.integers(0, 10**9))
def test_durations_survive_writing(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


def test_a_negative_duration_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="negative"):
        format_duration(timedelta(seconds=-1))


@pytest.mark.parametrize(
    ("text", "written"), [("0.10", "0.1"), ("10", "10"), ("2.0", "2"), ("0", "0"), ("100", "100")]
)
def test_reads_and_writes_decimals(text: str, written: str) -> None:
    assert format_decimal(parse_decimal(text)) == written


@pytest.mark.parametrize("text", ["", ".5", "5.", "-1", "1e3", "0,5", "1.1234567", "1\n", "٣"])
def test_refuses_what_is_no_decimal(text: str) -> None:
    with pytest.raises(ValueError, match="is not a decimal number"):
        parse_decimal(text)


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("500m", "0.5"),
        ("2", "2"),
        (2, "2"),
        ("0.25", "0.25"),
        ("512Mi", str(512 * 2**20)),
        ("1G", "1000000000"),
        ("1E", "1e18"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("5e-1", "0.5"),
        ("100n", "1e-7"),
    ],
)
def test_reads_quantities(quantity: str | int, number: str) -> None:
    assert parse_quantity(quantity) == Decimal(number)


@pytest.mark.parametrize("text", ["", "m", "-1", "1 Gi", "1GB", "1e", "0x10", "1Ki2", "1\n"])
def test_refuses_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)
