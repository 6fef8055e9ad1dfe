"""Reads `Retry-After`, by which a service says how long it wants to be left alone."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


def retry_after(value: str, now: datetime) -> timedelta | None:
    """Read the header's value, in seconds or as a date (RFC 9110, section 10.2.3).

    Never negative; None for what is neither.
    """
    try:
        wait = timedelta(seconds=float(value)) if value[:1].isdigit() else _until(value, now)
    except (ValueError, OverflowError):
        return None
    return max(wait, timedelta(0))


def _until(date: str, now: datetime) -> timedelta:
    moment = parsedate_to_datetime(date)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now
