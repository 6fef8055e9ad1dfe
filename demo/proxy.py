"""Reaches a Service through the API server, which works with every cluster."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from demo.ground import DemoError, Ground


@contextmanager
def proxied(ground: Ground, namespace: str, name: str) -> Iterator[str]:
    """Give the address of a served model's /predict on loopback.

    Raises:
        DemoError: kubectl proxy did not start.
    """
    words = [ground.kubectl_program, "--kubeconfig", ground.kubeconfig, "proxy", "--port=0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)  # noqa: S603 - kubectl
    try:
        line = process.stdout.readline() if process.stdout else ""
        port = re.search(r":(\d+)", line)
        if port is None:
            raise DemoError(f"kubectl proxy did not start: {line}")
        service = f"namespaces/{namespace}/services/{name}:http/proxy"
        yield f"http://127.0.0.1:{port[1]}/api/v1/{service}/predict"
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()
