"""What is put on the ground: images, the chart, trained models."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo.ground import ROOT, SYSTEM, DemoError, Ground, run

CHART = ROOT / "charts" / "modelops-operator"
RELEASE = "modelops"


def push_images(ground: Ground) -> Mapping[str, str]:
    """Build and push the operator's and the builder's image; give their references by digest."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "images.json"
        run(
            sys.executable,
            "-m",
            "modelops_operator.builder.images",
            f"--registry={ground.registry}",
            f"--base={ground.base}",
            f"--output={output}",
            *(["--insecure"] if ground.insecure else []),
        )
        references: dict[str, str] = json.loads(output.read_text())
    return references


def values(ground: Ground, images: Mapping[str, str]) -> dict[str, Any]:
    """Give the chart's values for this ground; short intervals, for those who watch."""
    return {
        "mlflow": {"trackingUri": ground.tracking_uri, "pollInterval": "3s", "settle": "5s"},
        "registry": {"host": ground.registry, "insecure": ground.insecure},
        "caBundle": {"pem": Path(ground.ca_bundle).read_text() if ground.ca_bundle else ""},
        "monitoring": {"interval": "5s"},
        "operator": {"image": _image(images["operator"])},
        "builder": {
            "image": _image(images["builder"]),
            "indexUrls": [ground.index],
            "bases": {"3.11": ground.base},
        },
    }


def install(ground: Ground, settings: Mapping[str, Any]) -> None:
    """Install or upgrade the chart with these values, and wait until it is ready."""
    ground.helm(
        "upgrade",
        "--install",
        RELEASE,
        str(CHART),
        f"--namespace={SYSTEM}",
        "--create-namespace",
        "--values=-",
        "--wait",
        "--timeout=3m",
        given=json.dumps(settings),
    )


def uninstall(ground: Ground) -> None:
    """Remove the chart's release; the users' objects stay."""
    ground.helm("uninstall", RELEASE, f"--namespace={SYSTEM}", "--ignore-not-found", "--wait")


def train(ground: Ground, name: str, *options: str) -> str:
    """Train and register three models; give the summary that the trainer prints.

    Raises:
        DemoError: the training failed; its own words were shown.
    """
    words = [sys.executable, "-m", "modelops_training", f"--tracking-uri={ground.tracking_uri}"]
    outcome = subprocess.run(  # noqa: S603 - our own program, whose words are shown as they come
        [*words, f"--name={name}", *options],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if outcome.returncode:
        raise DemoError("the training failed, see above")
    return outcome.stdout.rstrip()


def _image(reference: str) -> dict[str, str]:
    repository, _, digest = reference.partition("@")
    return {"repository": repository, "digest": digest}
