"""What the demo stands on: a sandbox, or a cluster, a registry and an MLflow that exist already."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
SYSTEM: Final = "modelops-system"
SANDBOX: Final = "demo"
_EXISTING: Final = ("KUBECONFIG", "REGISTRY", "MLFLOW_TRACKING_URI")


class DemoError(Exception):
    """A step that did not do what it should, told for the person who watches."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Addresses and programs."""

    kubeconfig: str
    kubectl_program: str
    helm_program: str
    registry: str
    insecure: bool
    tracking_uri: str
    base: str
    index: str
    ca_bundle: str | None
    sandbox: str | None
    """Name of the sandbox; None for an existing cluster."""

    def kubectl(self, *arguments: str, given: str | None = None, check: bool = True) -> str:
        """Run kubectl and give what it prints.

        Raises:
            DemoError: it failed and `check` is set.
        """
        return run(
            self.kubectl_program,
            "--kubeconfig",
            self.kubeconfig,
            *arguments,
            given=given,
            check=check,
        )

    def helm(self, *arguments: str, given: str | None = None) -> str:
        """Run helm and give what it prints.

        Raises:
            DemoError: it failed.
        """
        return run(self.helm_program, "--kubeconfig", self.kubeconfig, *arguments, given=given)

    def deployment(self, name: str, namespace: str) -> dict[str, Any]:
        """Read a ModelDeployment."""
        text = self.kubectl("get", "modeldeployment", name, "-n", namespace, "-o", "json")
        tree: dict[str, Any] = json.loads(text)
        return tree


def run(*words: str, given: str | None = None, check: bool = True) -> str:
    """Run a program and give what it prints.

    Raises:
        DemoError: it failed and `check` is set; with its own words.
    """
    outcome = subprocess.run(  # noqa: S603 - our own programs
        words, input=given, capture_output=True, text=True, check=False, cwd=ROOT
    )
    if check and outcome.returncode:
        told = (outcome.stderr or outcome.stdout).strip()
        raise DemoError(f"`{' '.join(words)}` failed:\n{told[-3000:]}")
    return outcome.stdout


def find_ground(sandbox: str = SANDBOX) -> Ground:
    """Use what the environment names, else start the sandbox.

    Raises:
        DemoError: only a part of an existing platform is named, or the sandbox did not start.
    """
    named = {name: os.environ.get(name, "") for name in _EXISTING}
    if named["REGISTRY"]:
        return _existing(named)
    return of_sandbox(json.loads(_sandbox("up", "--name", sandbox)))


def of_sandbox(status: dict[str, Any]) -> Ground:
    """Read a sandbox's status."""
    return Ground(
        kubeconfig=status["kubeconfig"],
        kubectl_program=status["kubectl"],
        helm_program=status["helm"],
        registry=status["registry"]["host"],
        insecure=status["registry"]["insecure"],
        tracking_uri=status["mlflow"]["trackingUri"],
        base=next(iter(status["baseImages"].values())),
        index=status["index"]["url"],
        ca_bundle=status["index"]["caBundle"],
        sandbox=status["name"],
    )


def _existing(named: dict[str, str]) -> Ground:
    missing = [name for name, value in named.items() if not value]
    if missing:
        raise DemoError(f"set {', '.join(missing)} as well, to use an existing platform")
    for program in ("kubectl", "helm"):
        if shutil.which(program) is None and not os.environ.get(program.upper()):
            raise DemoError(
                f"{program} is not installed: install it, or set {program.upper()}=path"
            )
    insecure = os.environ.get("REGISTRY_INSECURE", "") == "1"
    base = os.environ.get("BASE_IMAGE") or next(
        iter(
            json.loads(
                _sandbox("push-base", named["REGISTRY"], *(["--insecure"] if insecure else []))
            ).values()
        )
    )
    return Ground(
        kubeconfig=named["KUBECONFIG"],
        kubectl_program=os.environ.get("KUBECTL", "kubectl"),
        helm_program=os.environ.get("HELM", "helm"),
        registry=named["REGISTRY"],
        insecure=insecure,
        tracking_uri=named["MLFLOW_TRACKING_URI"],
        base=base,
        index=os.environ.get("INDEX_URL", "https://pypi.org/simple"),
        ca_bundle=os.environ.get("CA_BUNDLE"),
        sandbox=None,
    )


def _sandbox(*arguments: str) -> str:
    outcome = subprocess.run(  # noqa: S603 - our own program, whose progress is shown as it comes
        [sys.executable, "-m", "sandbox", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if outcome.returncode:
        raise DemoError("the sandbox did not start, see above")
    return outcome.stdout
