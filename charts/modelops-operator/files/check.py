"""What `helm test` runs in the operator's image: are the definitions served, does it answer?"""

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path

IDENTITY = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def served_kinds() -> set[str]:
    """Ask the API server which kinds of ours it serves."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    request = urllib.request.Request(
        f"https://[{host}]:{port}/apis/modelops.dev/v1alpha1"
        if ":" in host
        else f"https://{host}:{port}/apis/modelops.dev/v1alpha1",
        headers={"Authorization": f"Bearer {(IDENTITY / 'token').read_text()}"},
    )
    trust = ssl.create_default_context(cafile=IDENTITY / "ca.crt")
    with urllib.request.urlopen(request, context=trust, timeout=10) as answer:
        return {resource["kind"] for resource in json.load(answer)["resources"]}


def main() -> int:
    """Check everything and say what was found; 0 when all is well."""
    missing = {"ModelDeployment", "ModelImage"} - served_kinds()
    if missing:
        print(f"the API server does not serve {', '.join(sorted(missing))}")
        return 1
    print("the API server serves ModelDeployment and ModelImage")
    for component in ("operator", "builder"):
        address = os.environ[f"{component.upper()}_ADDRESS"]
        with urllib.request.urlopen(f"{address}/readyz", timeout=10) as answer:
            print(f"the {component} answers at {address}/readyz: {answer.status}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
