"""What a process of ours does whatever its task: logs, signals, a clean end."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import structlog

from modelops_operator.adapters.kubernetes import ApiError
from modelops_operator.api.config import ConfigError, OperatorConfig, configured_path, load

_COLLECTING: Final = (20_000, 20, 20)
"""Python's own thresholds would have it look through everything many times a second."""
_log = structlog.get_logger()


def log_as_json() -> None:
    """Write one JSON object a line to standard output, other libraries' warnings included."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(ensure_ascii=False)],
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processor=structlog.processors.JSONRenderer(ensure_ascii=False),
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # It tells of every attempt; what came of it in the end is told by whoever asked.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def collect_rarely() -> None:
    """Look for garbage as seldom as there is any: what is imported stays, the cache is bytes."""
    gc.freeze()
    gc.set_threshold(*_COLLECTING)


def run_process(run: Callable[[OperatorConfig], Coroutine[Any, Any, None]]) -> None:
    """Read the configuration and run; where that cannot be, say why and exit 1."""
    log_as_json()
    collect_rarely()
    try:
        asyncio.run(run(load(configured_path())))
    except (ConfigError, ApiError) as error:
        sys.exit(str(error))


class Stop:
    """The wish, told by a signal, that the process end."""

    def __init__(self) -> None:
        self._told = asyncio.Event()

    def listen(self) -> None:
        """Take SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._tell, number.name)

    async def wait(self) -> None:
        """Wait for the signal."""
        await self._told.wait()

    def _tell(self, name: str) -> None:
        _log.info("stops", signal=name)
        self._told.set()


async def run_until_stopped(stop: Stop, tasks: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Run the named tasks until told to stop; then end them one after the other.

    Raises what ended a task that was to run for ever.
    """
    stop.listen()
    running = {asyncio.create_task(task, name=name): name for name, task in tasks.items()}
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (stopped, *running):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    for task in done - {stopped}:
        task.result()
        raise RuntimeError(f"the task {running[task]} ended, which it never should")


async def after(event: asyncio.Event, run: Callable[[], Awaitable[None]]) -> None:
    """Begin after an event: decisions made before the cluster is known would be wrong ones."""
    await event.wait()
    await run()
