"""Durations, decimals and Kubernetes quantities: text in the API, numbers in the program.

The API has no floats: they are written differently by every client, and Kubernetes' own
conventions forbid them. So thresholds and durations travel as strings and are read here.
"""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

DURATION_PATTERN: Final = r"^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$"
"""Go durations in whole hours, minutes and seconds. It lets the empty string through."""

DECIMAL_PATTERN: Final = r"^[0-9]{1,4}(\.[0-9]{1,6})?$"
"""Decimals without sign and exponent."""

QUANTITY_PATTERN: Final = (
    r"^[0-9]{1,15}(\.[0-9]{1,9})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,2})?$"
)
"""Kubernetes quantities without a sign."""

_DURATION = re.compile(r"(?:(\d{1,5})h)?(?:(\d{1,5})m)?(?:(\d{1,5})s)?(?:(\d{1,5})ms)?", re.ASCII)
_DECIMAL = re.compile(DECIMAL_PATTERN.removesuffix("$") + r"\Z", re.ASCII)
_QUANTITY = re.compile(
    r"(?P<number>\d{1,15}(?:\.\d{1,9})?)"
    r"(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?\d{1,2}))?",
    re.ASCII,
)
_SUFFIXES: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


def parse_duration(text: str) -> timedelta:
    """Read `1h30m`, `5m`, `30s` or `250ms`; the units come in this order, each at most once.

    Raises ValueError, with a message for people, for anything else.
    """
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{text!r} is not a duration; write it like 30s, 5m or 1h30m")
    hours, minutes, seconds, milliseconds = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)


def format_duration(duration: timedelta) -> str:
    """Write a duration that is not negative as `parse_duration` reads it, to the millisecond."""
    milliseconds = round(duration.total_seconds() * 1000)
    if milliseconds < 0:
        raise ValueError(f"{duration} is negative")
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds, milliseconds = divmod(rest, 1000)
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"), (milliseconds, "ms"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def parse_decimal(text: str) -> Decimal:
    """Read a decimal such as `0.25`: digits, at most six of them behind the point, no sign.

    Raises ValueError, with a message for people, for anything else.
    """
    if not _DECIMAL.match(text):
        raise ValueError(f'{text!r} is not a decimal number; write it like "0.25"')
    return Decimal(text)


def format_decimal(number: Decimal) -> str:
    """Write a decimal without exponent and without zeros at the end: `0.10` as `0.1`."""
    return without_zeros(f"{number:f}")


def without_zeros(text: str) -> str:
    """Leave out the zeros at the end of a decimal's digits."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse_quantity(quantity: str | int) -> Decimal:
    """Read a Kubernetes quantity (`500m`, `2`, `512Mi`, `1e3`) as the number that it stands for.

    Two quantities are the same exactly when the numbers are: `0.5` and `500m`, `1Gi` and
    `1024Mi`. Raises ValueError, with a message for people.
    """
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity; write it like 500m, 2 or 512Mi")
    number = Decimal(match["number"])
    if match["exponent"]:
        return number.scaleb(int(match["exponent"]))
    return number * _SUFFIXES.get(match["suffix"] or "", Decimal(1))
