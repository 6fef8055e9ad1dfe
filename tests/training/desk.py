"""`modelops serve` as somebody at a desk starts it."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 120


def serve(
    model: str, tracking_uri: str, log: Path, **environment: str
) -> tuple["subprocess.Popen[bytes]", str]:
    """Start it; give the process and its address once it answers."""
    command = [sys.executable, "-m", "modelops_operator.cli.main", "serve", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, model, "--tracking-uri", tracking_uri],
            stdout=output,
            stderr=output,
            env=os.environ | environment,
        )
    deadline = time.monotonic() + PATIENCE
    # Its port is its own choice, which only its log tells: that is looked at again and again.
    while not (found := re.search(r"(http\S+) \(Ctrl-C ends it\)", log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return process, found[1]
