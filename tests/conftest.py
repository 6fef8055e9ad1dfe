"""What tests of several areas start: once for the whole session."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
# A time limit on an example would judge the machine, which others share.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
sys.path.insert(0, str(ROOT))  # `sandbox` is a program of this checkout and not installed


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; keep together, on one worker, what shares a platform."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)
    for item in items:
        end_to_end = item.get_closest_marker("e2e") is not None
        place = item.path.parent if end_to_end else item.path
        item.add_marker(pytest.mark.xdist_group(str(place.relative_to(ROOT))))


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A kubeconfig for a real API server with our custom resources and the operator's namespace."""
    from tests.apiserver import Kubectl, running_apiserver

    with running_apiserver(tmp_path_factory.mktemp("apiserver")) as kubeconfig:
        kubectl = Kubectl(kubeconfig)
        kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        kubectl("create", "namespace", "modelops-system")
        yield kubeconfig
