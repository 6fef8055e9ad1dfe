"""Refusals for people and programs: RFC 9457 problem details that name row, column and value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import orjson

from modelops_runtime.predictors import RowsRefused
from modelops_runtime.schema import InvalidRows, shown

MEDIA_TYPE: Final = b"application/problem+json"


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818 (what it is called in HTTP)
    """A request that is not answered as asked."""

    status: HTTPStatus
    detail: str
    """What is wrong and the way out."""
    title: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def body(self, request_id: bytes) -> bytes:
        """Write the problem, for the request of this name."""
        return orjson.dumps(
            {
                "type": "about:blank",
                "title": self.title or self.status.phrase,
                "status": self.status.value,
                "detail": self.detail,
                **self.more,
                "request_id": request_id.decode("ascii"),
            }
        )


def not_json(error: orjson.JSONDecodeError, body: bytes) -> Refusal:
    """Tell where a body stops being JSON."""
    hint = "; JSON has no NaN, write null for what is missing" if b"NaN" in body else ""
    return Refusal(
        HTTPStatus.BAD_REQUEST,
        f"the body is not JSON: {error}{hint}",
        title="The body is not JSON",
    )


def not_a_list(value: object, names: tuple[str, ...]) -> Refusal:
    """Tell what a body of another shape should be."""
    example = ", ".join(f'"{name}": ...' for name in names[:3])
    more = ", ..." if len(names) > 3 else ""
    expected = (
        f'a list of records: [{{{example}{more}}}], or {{"columns": [...], "data": [[...], ...]}}'
    )
    return Refusal(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"got {shown(value)}, expected {expected}",
        title="The body is not a list of records",
        more={"value": shown(value), "expected": expected},
    )


def bad_rows(error: InvalidRows) -> Refusal:
    """Tell which values do not fit; the first one stands at the top, too."""
    problems = [
        {
            "row": each.row,
            "column": each.field or None,
            "value": orjson.Fragment(each.value) if _is_json(each.value) else each.value,
            "expected": each.expected,
        }
        for each in error.problems
    ]
    return Refusal(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        str(error),
        title="Rows do not fit the model's inputs",
        more={"count": error.total, **problems[0], "problems": problems},
    )


def refused_by_model(error: RowsRefused) -> Refusal:
    """Tell what a model itself says of rows that fit its signature."""
    return Refusal(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"the model does not take these rows: {error}",
        title="Rows that the model refuses",
    )


def too_many_rows(rows: int, most: int) -> Refusal:
    """Tell how many rows are taken."""
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"{rows:,} rows, where at most {most:,} are taken at a time",
        title="Too many rows",
        more={"rows": rows, "expected": f"at most {most} rows"},
    )


def _is_json(text: str) -> bool:
    """Whether a value is still whole: long ones are cut."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
