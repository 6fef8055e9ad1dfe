"""Real registries, as processes."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelops_operator.adapters.oci import Registry


@dataclass(frozen=True)
class RunningRegistry:
    host: str
    data: Path

    def connect(self, **settings: Any) -> Registry:
        return Registry(self.host, insecure=True, **settings)


StartRegistry = Callable[..., RunningRegistry]


def debian_registry(scratch: Path) -> Path:
    """Debian's docker-registry: installed, in the cache, or fetched as a package and unpacked."""
    if found := shutil.which("docker-registry"):
        return Path(found)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    binary = home / "modelops" / "docker-registry" / "usr" / "bin" / "docker-registry"
    if not binary.exists():
        scratch.chmod(0o777)
        command = ["apt-get", "download", "-qq", "docker-registry"]
        subprocess.run(command, cwd=scratch, check=True, capture_output=True)
        (package,) = scratch.glob("*.deb")
        subprocess.run(["dpkg", "-x", package, scratch / "root"], check=True)
        binary.parent.parent.parent.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(scratch / "root", binary.parents[2], dirs_exist_ok=True)
    return binary


def wait_for(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until somebody answers; raise RuntimeError, with the log, when the process ends."""
    name, port = host.split(":")
    for _ in range(4000):
        try:
            socket.create_connection((name, int(port)), timeout=1).close()
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(log.read_text()) from None
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nobody answers at {host}")
