"""Helm, which waits by kstatus' rules, on a brand-new, rolling, stalled and deleted object."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.ground import DemoError, Ground
from tests.e2e.objects import conditions, manifest

pytestmark = pytest.mark.e2e
NAME = "waited-for"
Upgrade = Callable[..., str]


@pytest.fixture
def upgrade(platform: Ground, namespace: str, tmp_path: Path) -> Upgrade:
    """Have Helm apply a chart whose one template is a ModelDeployment, and wait."""
    chart = tmp_path / NAME
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: {NAME}\nversion: 0.1.0\n")

    def helm(alias: str, replicas: int, patience: str = "150s") -> str:
        models = {"predictor": {"name": "employment", "alias": alias}}
        resources = {"requests": {"cpu": "50m", "memory": "128Mi"}}
        serving = {"replicas": replicas, "resources": resources}
        wanted = manifest(NAME, namespace, models=models, serving=serving)
        (chart / "templates" / "object.yaml").write_text(json.dumps(wanted))
        return platform.helm(
            *("upgrade", "--install", NAME, str(chart), "-n", namespace),
            *("--wait", f"--timeout={patience}"),
        )

    return helm


def test_helm_waits_for_what_it_should(platform: Ground, namespace: str, upgrade: Upgrade) -> None:
    upgrade("candidate", 1)
    assert conditions(platform, NAME, namespace)["Ready"]["status"] == "True"
    # Rolling: both replicas are there when Helm returns.
    upgrade("candidate", 2)
    live = platform.deployment(NAME, namespace)
    assert live["status"]["readyReplicas"] == 2
    assert "Reconciling" not in conditions(platform, NAME, namespace)
    # Stalled: Helm says so instead of waiting to its end, and what ran goes on running.
    with pytest.raises(DemoError, match="Failed"):
        upgrade("no-such-alias", 2, patience="600s")
    assert conditions(platform, NAME, namespace)["Ready"]["status"] == "True"
    platform.kubectl(
        *("-n", namespace, "wait", "--for=condition=Stalled", f"modeldeployment/{NAME}"),
        "--timeout=10s",
    )
    platform.helm("uninstall", NAME, "-n", namespace, "--wait", "--timeout=60s")
    listing = platform.kubectl("-n", namespace, "get", "modeldeployments", "-o", "name")
    assert not listing.strip()


def test_explain_reads_well(platform: Ground) -> None:
    said = platform.kubectl("explain", "modeldeployment.spec")
    for field in ("models", "monitoring", "serving", "suspend"):
        assert field in said
    assert "predictor" in platform.kubectl("explain", "modeldeployment", "--recursive")
    assert "<empty>" not in said
