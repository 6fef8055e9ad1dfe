"""The server's paths without a server: requests go straight into the application."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from modelops_runtime import routes
from modelops_runtime.answering import Answerer, Deployment
from modelops_runtime.endpoint import Desk, ServingMiddleware
from modelops_runtime.models import describe, load
from starlette.applications import Starlette

DEPLOYMENT = Deployment(model="staging/employment", revision="r", pod="p", window=60)


class Asker:
    """Asks the models of a folder."""

    def __init__(self, folder: Path) -> None:
        self.models = models = load(folder)
        answerer = Answerer(models, DEPLOYMENT)
        self.desk = Desk()
        self.desk.answerer = answerer
        self.desk.interfaces = routes.interfaces(models)
        self.desk.pages = routes.pages(models, answerer.metadata(), describe(folder)[1])
        application: Any = ServingMiddleware(Starlette(), self.desk)
        transport = httpx.ASGITransport(application, raise_app_exceptions=True)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://server")
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def race(self, *asked: tuple[str, str, Any]) -> list[httpx.Response]:
        """Ask all at a time; the last one has to be answered first."""

        async def run() -> list[httpx.Response]:
            tasks = [
                asyncio.create_task(self._client.request(method, path, json=content))
                for method, path, content in asked
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            assert done == {tasks[-1]}
            return await asyncio.gather(*tasks)

        return self._runner.run(run())

    def post_stream(self, path: str, content: AsyncIterator[bytes]) -> httpx.Response:
        """Post a body piece by piece."""
        return self._runner.run(self._client.post(path, content=content))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._client.get(path, **options))

    def post(self, path: str, content: object, **headers: str) -> httpx.Response:
        """Post bytes as they are, anything else as JSON."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"content": content} if isinstance(content, bytes) else {"json": content}
        return self._runner.run(self._client.post(path, headers=named, **body))
