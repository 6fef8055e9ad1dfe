"""What goes wrong with Log Analytics, put into words for the person who has to mend it."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.exceptions import ClientAuthenticationError, ServiceResponseTimeoutError
from azure.core.rest import AsyncHttpResponse
from azure.monitor.query import LogsQueryError

from modelops_operator.adapters.retry_after import retry_after
from modelops_operator.api.config import LogAnalyticsConfig
from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason

LONGEST_CAUSE: Final = 300
"""Characters of an answer that go into a message."""
LONGEST_WAIT: Final = timedelta(hours=1)
"""No `Retry-After` keeps us silent for longer."""

_TABLE: Final = "ContainerLogV2"
_UNRESOLVED: Final = {"SEM0100", "SEM0260"}
"""Codes of the query engine for a name that it does not know."""
_BASIC: Final = "UnsupportedApiQueryValidationError"


@dataclass(frozen=True, slots=True)
class Answer:
    """The error that the service answered with, from its outermost to its innermost part."""

    status: int
    codes: tuple[str, ...] = ()
    message: str = ""
    """Of the innermost part: it says most."""
    retry_after: timedelta | None = None

    @classmethod
    def of(cls, response: AsyncHttpResponse, now: datetime) -> "Answer":
        """Read it; what is not understood goes into the message as it is."""
        body = response.text()
        parts = list(_parts(body))
        messages = [part["message"] for part in parts if part.get("message")]
        return cls(
            status=response.status_code,
            codes=tuple(str(part["code"]) for part in parts if part.get("code")),
            message=_shortened(messages[-1] if messages else body),
            retry_after=_wait(response.headers, now),
        )

    def __str__(self) -> str:
        code = f" {self.codes[-1]}" if self.codes else ""
        return f"{self.status}{code}" + (f": {self.message}" if self.message else "")


def described(
    error: Exception, response: AsyncHttpResponse | None, place: LogAnalyticsConfig, now: datetime
) -> tuple[Failure, timedelta | None]:
    """Say what an error of the client means and what to do, and how long the service wants peace.

    `response` is the service's own, where it came to one; an error without may be the identity's.
    """
    if response is not None and response.status_code >= HTTPStatus.BAD_REQUEST:
        answer = Answer.of(response, now)
        return _refused(answer, place), answer.retry_after
    # The client raises its own kind in place of the identity's, which remains as the context.
    for cause in (error, error.__context__):
        if isinstance(cause, ClientAuthenticationError):
            return _unidentified(cause), None
    if isinstance(error, TimeoutError | ServiceResponseTimeoutError):
        return _passing(f"{_where(place)} did not answer in time"), None
    told = _shortened(f"{type(error).__name__} {error}".strip())
    return _passing(f"{_where(place)} gave no usable answer: {told}"), None


def _unidentified(error: ClientAuthenticationError) -> Failure:
    return _failed(
        Reason.IDENTITY_UNAVAILABLE,
        f"no token for Log Analytics: {_shortened(error.message)}; on AKS, give the operator's"
        " ServiceAccount the annotation azure.workload.identity/client-id, and the identity a"
        " federated credential for it (chart value operator.workloadIdentity.clientId)",
    )


def partial(error: LogsQueryError | None, place: LogAnalyticsConfig) -> Failure:
    """Tell of an answer that lacks a part of what was asked for."""
    cause = f": {error.code} {error.message or ''}".rstrip() if error is not None else ""
    return _passing(f"{_where(place)} answered in part only{_shortened(cause)}")


def not_collected(namespace: str, span: timedelta, place: LogAnalyticsConfig) -> Failure:
    """Tell that nothing at all arrives of a namespace."""
    return _failed(
        Reason.LOGS_NOT_COLLECTED,
        f"no logs of namespace {namespace} reached {_TABLE} in {_where(place)} within"
        f" {_minutes(span)}: let Container insights collect stdout of this namespace (ConfigMap"
        " container-azm-ms-agentconfig in kube-system, or the data collection settings), with"
        f" {_TABLE} as the schema",
    )


def not_summarised(namespace: str, place: LogAnalyticsConfig) -> Failure:
    """Tell that the summary rule brings no telemetry of a namespace."""
    return _failed(
        Reason.LOGS_NOT_COLLECTED,
        f"no telemetry of namespace {namespace} reached {place.summary_table} in {_where(place)}:"
        " see in LASummaryLogs whether the summary rule runs, that its query is that of"
        f" adapters/kql/rule.kql, and that {_TABLE} has stdout of the namespace's pods",
    )


def filtered(namespace: str, lines: int, span: timedelta, place: LogAnalyticsConfig) -> Failure:
    """Tell that other lines of a namespace arrive, and none of ours."""
    return _failed(
        Reason.TELEMETRY_FILTERED,
        f"{lines:,} lines of namespace {namespace} reached {_TABLE} in {_where(place)} within"
        f" {_minutes(span)}, none of them telemetry: something drops stdout of the containers"
        ' `server`, or lines with "mdw1": the log filters of ConfigMap'
        " container-azm-ms-agentconfig, an annotation of the pods, or a transformation of the data"
        " collection rule",
    )


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What only a person can mend."""

    known: Callable[[Answer], bool]
    reason: Reason
    way_out: str


_REFUSALS: Final = (
    _Refusal(
        lambda answer: answer.status == HTTPStatus.NOT_FOUND,
        Reason.WORKSPACE_NOT_FOUND,
        "check monitoring.logAnalytics: workspaceId is the GUID in the workspace's overview (not"
        " its name), resourceId the cluster's whole ID, endpoint that of its cloud",
    ),
    _Refusal(
        lambda answer: (
            answer.status == HTTPStatus.UNAUTHORIZED
            or any(code.startswith("InvalidAuthenticationToken") for code in answer.codes)
        ),
        Reason.QUERY_DENIED,
        "the token is not for this service: check monitoring.logAnalytics.endpoint and audience,"
        " and that the identity is of the workspace's tenant",
    ),
    _Refusal(
        lambda answer: answer.status == HTTPStatus.FORBIDDEN,
        Reason.QUERY_DENIED,
        "give the operator's identity the role Log Analytics Reader there; a new role takes some"
        " minutes to be known",
    ),
    _Refusal(
        lambda answer: _BASIC in answer.codes,
        Reason.LOG_TABLE_ON_BASIC_PLAN,
        f"set the plan of table {_TABLE} to Analytics, let a summary rule copy what we need"
        " (monitoring.logAnalytics.summaryTable), or take monitoring.backend PodLogs",
    ),
    _Refusal(
        lambda answer: bool(_UNRESOLVED & set(answer.codes)) and _TABLE in answer.message,
        Reason.LOG_TABLE_MISSING,
        f"switch on Container insights with the schema {_TABLE}, and check that the cluster sends"
        " its logs to this workspace",
    ),
)


def _refused(answer: Answer, place: LogAnalyticsConfig) -> Failure:
    said = f"{_where(place)} answers {answer}"
    summary = place.summary_table
    if summary and summary in answer.message and _UNRESOLVED & set(answer.codes):
        return _failed(
            Reason.LOG_TABLE_MISSING,
            f"{said}; make the summary rule that writes {summary} (adapters/kql/rule.kql is its"
            " query; the table comes with its first run), or mend monitoring.logAnalytics",
        )
    for refusal in _REFUSALS:
        if refusal.known(answer):
            return _failed(refusal.reason, f"{said}; {refusal.way_out}")
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        wait = answer.retry_after
        until = "" if wait is None else f", and is asked again in {wait.total_seconds():.0f} s"
        message = f"{said}; it limits how often it may be asked{until}; a larger"
        message += " monitoring.logAnalytics.interval asks it less"
        return Failure(reason=Reason.QUERY_THROTTLED, message=message, permanent=False)
    return _passing(said)


def _where(place: LogAnalyticsConfig) -> str:
    host = urlsplit(place.endpoint).netloc
    if place.workspace_id:
        return f"workspace {place.workspace_id} at {host}"
    return f"resource {place.resource_id} at {host}"


def _parts(body: str) -> Iterator[Mapping[str, Any]]:
    """Give the nested errors of an answer, the outermost first."""
    try:
        part = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return
    while isinstance(part, Mapping):
        yield part
        part = part.get("innererror")


def _wait(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    wait = retry_after(headers.get("Retry-After", ""), now)
    return None if wait is None else min(wait, LONGEST_WAIT)


def _minutes(span: timedelta) -> str:
    return f"{span.total_seconds() / 60:.0f} minutes"


def _shortened(text: str) -> str:
    return " ".join(text.split())[:LONGEST_CAUSE]


def _failed(reason: Reason, message: str) -> Failure:
    return Failure(reason=reason, message=message, permanent=True)


def _passing(message: str) -> Failure:
    return Failure(reason=Reason.QUERY_FAILED, message=message, permanent=False)
