"""What a registry's refusals mean, in words for the person who has to mend them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason


class RegistryError(Exception):
    """The registry did not do what was asked."""

    def __init__(self, failure: Failure, *, status: int | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.status = status
        """HTTP status of the answer; None when there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """A kind of refusal, known by any of its statuses or by words of the answer."""

    reason: Reason
    way_out: str
    statuses: Sequence[int] = ()
    words: str = "(?!)"
    """A regular expression; what matches nothing unless given."""
    permanent: bool = True

    def fits(self, status: int, said: str) -> bool:
        return status in self.statuses or re.search(self.words, said, re.IGNORECASE) is not None


_REFUSALS: Final[tuple[_Refusal, ...]] = (
    _Refusal(
        reason=Reason.IMAGE_REGISTRY_FULL,
        # Each registry has words of its own: Harbor, Azure, GitLab, Quay.
        words=r"quota|storage (limit|resource)|upper limit|size limit exceeded",
        statuses=(507,),
        way_out="delete images that nobody uses, or raise the quota",
    ),
    _Refusal(
        reason=Reason.IMAGE_TAG_LOCKED,
        words=r"immutab|locked|cannot be overwritten|disallowed operation|"
        r"operation is disallowed|write-?protected",
        way_out="unlock the repository or the tag, or exempt it from the rule that makes tags "
        "immutable",
    ),
    _Refusal(
        reason=Reason.IMAGE_TOO_LARGE,
        statuses=(413,),
        way_out="let the registry and every proxy before it accept bodies of 16 MB (with nginx, "
        "`client_max_body_size`)",
    ),
    _Refusal(
        reason=Reason.IMAGE_INCOMPLETE,
        words="MANIFEST_BLOB_UNKNOWN",
        way_out="the image lacks a layer there; it is tried again",
        permanent=False,
    ),
    _Refusal(
        reason=Reason.IMAGE_DAMAGED,
        words=r"DIGEST_INVALID|SIZE_INVALID",
        way_out="something between us and the registry changes what is sent; it is tried again",
        permanent=False,
    ),
    _Refusal(
        reason=Reason.IMAGE_REGISTRY_UNREACHABLE,
        statuses=(408, 416, 425, 429, *range(500, 600)),
        way_out="it is tried again",
        permanent=False,
    ),
    _Refusal(
        reason=Reason.IMAGE_REPOSITORY_NOT_FOUND,
        statuses=(404,),
        words="NAME_UNKNOWN",
        way_out="create the repository (in Harbor the project) where the registry does not do so "
        "by itself, and check `registry.host` and `registry.prefix`",
    ),
)
"""The first that fits decides."""


@dataclass(frozen=True, slots=True)
class RegistryErrors:
    """Makes the errors of one registry."""

    host: str
    access: str
    """What to check when the registry refuses us: depends on how we present ourselves."""

    def refused(self, response: httpx.Response, what: str) -> RegistryError:
        """Tell of an answer that is an error; `what` was tried."""
        status, said = response.status_code, complaint(response)
        for refusal in _REFUSALS:
            if refusal.fits(status, said):
                message = f"{what}: {said}; {refusal.way_out}"
                return self._error(refusal.reason, message, status, permanent=refusal.permanent)
        denied = status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
        way_out = self.access if denied else "check the repository's name, limits and policies"
        message = f"{what}: {said}; {way_out}"
        return self._error(Reason.IMAGE_REGISTRY_DENIED, message, status, permanent=True)

    def denied(self, message: str) -> RegistryError:
        """Tell of credentials that do not get us in, before the registry was asked."""
        return self._error(Reason.IMAGE_REGISTRY_DENIED, message, None, permanent=True)

    def unreachable(self, what: str, error: Exception) -> RegistryError:
        """Tell of no answer."""
        cause = str(error) or type(error).__name__
        message = f"{what}: no answer ({cause}); check that {self.host} is reachable from here"
        return self._error(Reason.IMAGE_REGISTRY_UNREACHABLE, message, None)

    def fault(self, message: str) -> RegistryError:
        """Tell of an answer that makes no sense."""
        return self._error(Reason.IMAGE_REGISTRY_UNREACHABLE, message, None)

    def damaged(self, message: str) -> RegistryError:
        """Tell of content that is not what its digest says."""
        return self._error(Reason.IMAGE_DAMAGED, message, None)

    def _error(
        self, reason: Reason, message: str, status: int | None, *, permanent: bool = False
    ) -> RegistryError:
        text = f"registry {self.host}: {message}"
        return RegistryError(
            Failure(reason=reason, message=text, permanent=permanent), status=status
        )


def complaint(response: httpx.Response) -> str:
    """Give the status and what the registry said about it, in one short line."""
    try:
        answer = response.json()
        # Registries answer with `errors`, token servers in OAuth2's way.
        first = (answer.get("errors") or [{}])[0]
        parts = (first.get("code"), first.get("message"), answer.get("error_description"))
        said = " ".join(str(part) for part in parts if part)
    except (ValueError, AttributeError, LookupError, TypeError, httpx.ResponseNotRead):
        said = ""
    return f"{response.status_code} {said or response.reason_phrase}"[:300]
