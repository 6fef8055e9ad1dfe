"""Ask an installed chart whether all is well: what `helm test` runs in the operator's image."""
# ruff: noqa: INP001  (a program, handed to `python3 -c`, and no part of a package)

import json
import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

IDENTITY = Path("/var/run/secrets/kubernetes.io/serviceaccount")
KINDS = {"ModelDeployment", "ModelImage"}
COMPONENTS = ("operator", "builder")
TIMEOUT = 10  # seconds


def unserved_kinds() -> set[str]:
    """Ask the API server which of our kinds it does not serve."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    trust = ssl.create_default_context(cafile=IDENTITY / "ca.crt")
    connection = HTTPSConnection(host, int(port), context=trust, timeout=TIMEOUT)
    token = (IDENTITY / "token").read_text()
    path = "/apis/modelops.dev/v1alpha1"
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    found = json.load(answer)["resources"] if answer.status == 200 else []
    return KINDS - {resource["kind"] for resource in found}


def problem_of(component: str) -> str:
    """Ask a component whether it is ready; empty when it is."""
    host, port = os.environ[f"{component.upper()}_ADDRESS"].split(":")
    try:
        connection = HTTPConnection(host, int(port), timeout=TIMEOUT)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"the {component} does not answer at http://{host}:{port}/readyz: {error}"
    return "" if status == 200 else f"the {component} is not ready: /readyz answers {status}"


def main() -> int:
    """Check everything and say what was found; 0 when all is well."""
    problems = [f"the API server does not serve {kind}" for kind in sorted(unserved_kinds())]
    problems += filter(None, map(problem_of, COMPONENTS))
    sys.stdout.write("\n".join(problems or ["definitions, operator and builder are ready"]) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
