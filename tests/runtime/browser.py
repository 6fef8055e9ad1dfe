"""Debian's headless Chromium, driven by the WebDriver protocol: https://www.w3.org/TR/webdriver2/"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.mlflow_server import free_port

PACKAGES = ("chromium", "chromium-driver")
PATIENCE = 60
OPTIONS = (
    "--headless",
    "--no-sandbox",  # which does not start as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,2000",
)
# The key under which WebDriver names an element.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def install() -> None:
    """Bring Chromium and its driver where they are not. Raises RuntimeError if that cannot be."""
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(
            f"the test of Swagger needs the Debian packages {' and '.join(PACKAGES)}:"
            f" apt-get install {' '.join(PACKAGES)}"
        )
    command = ("install", "-y", "--no-install-recommends", *PACKAGES)
    if _apt(*command).returncode != 0:
        _apt("update")
        done = _apt(*command)
        if done.returncode != 0:
            raise RuntimeError(f"{' and '.join(PACKAGES)} cannot be installed: {done.stderr}")


def _apt(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Tests of the sandbox may be installing something as well.
    command = ("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *arguments)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


class Browser:
    """One window."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def open(self, address: str) -> None:
        self._post("url", url=address)

    def click(self, selector: str) -> None:
        """Click on the first element that a CSS selector finds, once there is one."""
        element = self._find(selector)
        self._post("execute/sync", script=_CLICK, args=[{ELEMENT: element}])

    def text(self, selector: str) -> str:
        """Read the text of an element, once there is one."""
        found: str = self._get(f"element/{self._find(selector)}/text")
        return found

    def _find(self, selector: str) -> str:
        found: str = self._post("element", using="css selector", value=selector)[ELEMENT]
        return found

    def _post(self, command: str, **arguments: object) -> Any:
        return _value(self._client.post(command, json=arguments))

    def _get(self, command: str) -> Any:
        return _value(self._client.get(command))


_CLICK = "arguments[0].scrollIntoView(); arguments[0].click()"


def _value(response: httpx.Response) -> Any:
    value = response.json()["value"]
    assert response.is_success, value
    return value


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start a browser with a profile of its own; what is looked for is awaited."""
    install()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        with Path(folder, "log").open("wb") as log:
            command = ("chromedriver", f"--port={port}")
            driver = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            with _session(f"http://127.0.0.1:{port}/session", Path(folder, "user")) as browser:
                yield browser
        finally:
            driver.terminate()
            driver.wait(PATIENCE)


@contextmanager
def _session(address: str, profile: Path) -> Iterator[Browser]:
    transport = httpx.HTTPTransport(retries=10)  # until the driver listens
    options = {"args": [*OPTIONS, f"--user-data-dir={profile}"]}
    wanted = {"goog:chromeOptions": options, "timeouts": {"implicit": PATIENCE * 1000}}
    with httpx.Client(transport=transport, timeout=2 * PATIENCE) as client:
        capabilities = {"capabilities": {"alwaysMatch": wanted}}
        session = f"{address}/{_value(client.post(address, json=capabilities))['sessionId']}"
        client.base_url = httpx.URL(f"{session}/")
        yield Browser(client)
        client.delete(session).raise_for_status()
