"""Deletes the ModelImages that nobody asks for any more.

They belong to all deployments of the same models, in whatever namespace, so no owner reference can
do it.
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from pydantic import ValidationError

from modelops_operator.adapters.kubernetes import MODEL_DEPLOYMENTS, MODEL_IMAGES, Cluster
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import Failure
from modelops_operator.api.resources import ModelDeployment
from modelops_operator.core.image import missing_base, wanted_image
from modelops_operator.core.wishes import REBUILD, wish
from modelops_operator.shell.cache import Cache, Manifest
from modelops_operator.shell.controller import predictor_of
from modelops_operator.shell.execute import Executor
from modelops_operator.shell.follower import ModelFollower
from modelops_operator.shell.leader import NotLeadingError

YOUNG: Final = timedelta(minutes=2)
"""A ModelImage younger than this is not judged: who asked for it may not be seen yet."""

_log = structlog.get_logger()


class UnwantedImages:
    """Finds and deletes them, in doubt never."""

    def __init__(
        self,
        config: OperatorConfig,
        cluster: Cluster,
        cache: Cache,
        follower: ModelFollower,
        executor: Executor,
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._cache = cache
        self._follower = follower
        self._executor = executor

    async def delete(self) -> None:
        """Delete, as long as we lead, what no ModelDeployment asks for or runs. Raises ApiError."""
        if self._executor.leading:
            with suppress(NotLeadingError):
                await self._delete()

    async def _delete(self) -> None:
        candidates = [live for live in self._cache.all(MODEL_IMAGES.kind) if _is_old(live)]
        if not candidates:
            return
        wanted: set[str] = set()
        # What the cache says is not enough to delete something: all are read anew.
        for namespace in self._config.operator.namespaces or (None,):
            async for live in self._cluster.list(MODEL_DEPLOYMENTS, namespace):
                wanted |= await self._wanted(live, candidates)
        for image in candidates:
            if _name(image) not in wanted:
                _log.info("deletes image", name=_name(image), why="nobody asks for it")
                await self._executor.delete_image(image)

    async def _wanted(self, live: Manifest, candidates: list[Manifest]) -> set[str]:
        """Name the candidates that an object asks for, or may ask for."""
        reference = ((live.get("status") or {}).get("image") or {}).get("reference")
        running = {_name(one) for one in candidates if reference and _built(one) == reference}
        try:
            desired = ModelDeployment.model_validate(live)
        except ValidationError:
            return {_name(one) for one in candidates}
        references = desired.spec.models.by_role()
        models = await self._follower.resolve(references, fresh=False)
        found = {role: one for role, one in models.items() if not isinstance(one, Failure)}
        if len(found) < len(models) or missing_base(found, self._config) is not None:
            predictor = desired.spec.models.predictor.name
            return running | {_name(one) for one in candidates if predictor_of(one) == predictor}
        profile = desired.spec.serving.runtime
        rebuilds = {None, wish(desired, REBUILD), desired.status.handled_requests.get(REBUILD)}
        return running | {
            _name(wanted_image(found, rebuild=rebuild, config=self._config, profile=profile))
            for rebuild in rebuilds
        }


def _is_old(live: Manifest) -> bool:
    metadata = live["metadata"]
    created = datetime.fromisoformat(metadata["creationTimestamp"])
    return "deletionTimestamp" not in metadata and datetime.now(UTC) - created > YOUNG


def _built(image: Manifest) -> str | None:
    built: str | None = (image.get("status", {}).get("image") or {}).get("reference")
    return built


def _name(live: Manifest) -> str:
    name: str = live["metadata"]["name"]
    return name
