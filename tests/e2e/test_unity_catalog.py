"""Models of Unity Catalog, from training to an answer and a new version of it."""

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from modelops_training.data import records

from demo.ground import SYSTEM, Ground
from demo.platform import RELEASE, install, train
from demo.proxy import proxied
from tests.databricks import STORAGE, Workspace
from tests.e2e.objects import manifest
from tests.e2e.waiting import eventually
from tests.registries.tokens import Certificate

pytestmark = pytest.mark.e2e
NAME = "main.ml.employment"
SECRET = "databricks"
ALIAS = {"alias": "candidate"}
MODELS = {
    "predictor": {"name": NAME, **ALIAS},
    "drift": {"name": f"{NAME}_drift", **ALIAS},
    "outlier": {"name": f"{NAME}_outlier", **ALIAS},
}


@pytest.fixture(scope="module")
def workspace(platform: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace on Azure where the pods can reach it: where their MLflow is."""
    address = str(urlsplit(platform.tracking_uri).hostname)
    certificate = Certificate(tmp_path_factory.mktemp("lake"), address)
    workspace = Workspace(certificate, address=address)
    with workspace.serving() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, "MLFLOW_REGISTRY_URI": "databricks-uc"}.items():
            patch.setenv(name, value)
        yield workspace


@pytest.fixture(scope="module")
def on_databricks(platform: Ground, workspace: Workspace) -> Iterator[Ground]:
    """The platform, whose operator and builder read the catalog for a while."""
    assert workspace.certificate
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": SYSTEM},
        "stringData": {"DATABRICKS_HOST": workspace.host, "DATABRICKS_TOKEN": workspace.token},
    }
    platform.kubectl("apply", "-f", "-", given=json.dumps(secret))
    usual = json.loads(platform.helm("get", "values", RELEASE, "-n", SYSTEM, "-o", "json"))
    mlflow = {**usual["mlflow"], "trackingUri": "databricks", "credentialsSecret": SECRET}
    trusted = {"pem": usual["caBundle"]["pem"] + workspace.certificate.path.read_text()}
    install(platform, {**usual, "mlflow": mlflow, "caBundle": trusted})
    yield platform
    install(platform, usual)
    platform.kubectl("-n", SYSTEM, "delete", "secret", SECRET)


def test_an_alias_of_the_catalog_is_served_and_followed(
    on_databricks: Ground, workspace: Workspace, namespace: str
) -> None:
    ground, name = on_databricks, "catalogued"
    train(ground, NAME)
    serving = {"replicas": 1, "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}}}
    wanted = manifest(name, namespace, models=MODELS, serving=serving)
    ground.kubectl("apply", "-f", "-", given=json.dumps(wanted))
    words = ("wait", "--for=condition=Ready", f"modeldeployment/{name}", "--timeout=240s")
    ground.kubectl("-n", namespace, *words)

    def deployed() -> dict[str, str]:
        models = ground.deployment(name, namespace)["status"]["models"]
        return {model["name"]: model["version"] for model in models}

    names = [str(model["name"]) for model in MODELS.values()]
    assert deployed() == dict.fromkeys(names, "1")
    with proxied(ground, namespace, name) as url:
        rows = list(records(2016, limit=20))
        answer = httpx.post(url, json=rows, timeout=10).json()
        assert len(answer["predictions"]) == len(answer["outliers"]) == 20
    train(ground, NAME, "--seed", "1")
    eventually(lambda: deployed() == dict.fromkeys(names, "2"), 180, "the second training")
    assert any(
        path.startswith(f"/{STORAGE}/Models/main/ml/employment/2/") for _, path in workspace.asked
    )
