"""A package index on loopback: the wheels that a benchmark needs, fetched once for this machine.

Both sides of a comparison install from it, so that neither waits for the network.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from aiohttp import web
from modelops_operator.adapters.http_client import http_client
from modelops_operator.builder.lock import LockedWheel
from modelops_operator.builder.wheels import WheelStore

HOST = "127.0.0.1"


class LocalIndex:
    """The simple repository API (PEP 503) over a folder of wheels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("simple", "store"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def add(self, wheels: Iterable[LockedWheel], ca_bundle: Path | None) -> None:
        """Fetch wheels and offer them."""
        asyncio.run(self._add(list(wheels), ca_bundle))

    async def _add(self, wheels: list[LockedWheel], ca_bundle: Path | None) -> None:
        async with http_client(ca_bundle) as client:
            store = WheelStore(self._folder / "store", client)
            await asyncio.gather(*(self._offer(wheel, store) for wheel in wheels))

    async def _offer(self, wheel: LockedWheel, store: WheelStore) -> None:
        path = self._folder / "simple" / wheel.name / wheel.filename
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(await store.fetch(wheel))

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve in a thread; give the index's address."""
        loop = asyncio.new_event_loop()
        app = web.Application()
        app.router.add_get("/simple/{name}/", self._page)
        app.router.add_static("/simple", self._folder / "simple", follow_symlinks=True)
        runner = web.AppRunner(app, access_log=None)
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.TCPSite(runner, HOST, 0).start())
        url = f"http://{HOST}:{runner.addresses[0][1]}/simple"
        thread = Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            yield url
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _page(self, request: web.Request) -> web.Response:
        folder = self._folder / "simple" / request.match_info["name"]
        if not folder.is_dir():
            raise web.HTTPNotFound
        links = (
            f'<a href="{path.name}#sha256={path.readlink().stem}">{path.name}</a>'
            for path in sorted(folder.glob("*.whl"))
        )
        return web.Response(text="\n".join(links), content_type="text/html")
