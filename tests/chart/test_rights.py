"""The roles hold what the code asks of the API server, and nothing else.

What it asks is read from the source: every call of a method of `Cluster`, with its resource.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import modelops_operator
import pytest
from modelops_operator.adapters import kubernetes
from modelops_operator.adapters.kubernetes import CHILDREN, Resource
from modelops_operator.core.children import KINDS

from tests.chart.chart import VALUES, granted, merged, render

pytestmark = pytest.mark.contract

SHELL = Path(modelops_operator.__file__).parent / "shell"
OPERATOR = ("controller", "execute", "gather", "leader", "sweep", "unwanted")
BUILDER = ("builds", "leader", "sweep")
VERBS = {
    "get": ("get",),
    "list": ("list",),
    "create": ("create",),
    "replace": ("update",),
    "delete": ("delete",),
    "pages": ("list",),
    "apply": ("create", "patch"),
    "write_status": ("patch",),
}
OPERATOR_WATCHES = (
    kubernetes.MODEL_DEPLOYMENTS,
    kubernetes.MODEL_IMAGES,
    kubernetes.PODS,
    *CHILDREN.values(),
)
NOT_IN_THE_SOURCE = {
    # Owner references that block deletion, where the API server checks them.
    ("update", "modeldeployments/finalizers"),
    # Both read logs: `log_tail`, and the follower of telemetry.
    ("get", "pods/log"),
}


def asked(modules: tuple[str, ...], watched: tuple[Resource, ...]) -> set[tuple[str, str]]:
    """Give verb and resource of every request that these modules of the shell make."""
    found = {(verb, each.plural) for each in watched for verb in ("list", "watch")}
    for module in modules:
        for method, resources in calls(ast.parse((SHELL / f"{module}.py").read_text())):
            suffix = "/status" if method == "write_status" else ""
            found |= {
                (verb, f"{each.plural}{suffix}")
                for each in resources
                for verb in VERBS[method]
                # The children that each ModelDeployment has go with it.
                if (verb, each.kind) not in {("delete", kind) for kind in KINDS}
            }
    return found


def calls(tree: ast.AST) -> Iterator[tuple[str, tuple[Resource, ...]]]:
    """Find the calls `....cluster.method(resource, ...)`."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in VERBS
            and ast.unparse(node.func.value).endswith("cluster")
        ):
            yield node.func.attr, named(node.args[0])


def named(argument: ast.expr) -> tuple[Resource, ...]:
    """Give the resources that an argument may be."""
    constant = getattr(kubernetes, argument.id, None) if isinstance(argument, ast.Name) else None
    if isinstance(constant, Resource):
        return (constant,)
    text = ast.unparse(argument)
    if text == "kind.resource":  # the sweep lists whatever is watched
        return ()
    assert text.startswith("CHILDREN[") or text == "resource", f"what is {text}?"
    return tuple(CHILDREN.values())


@pytest.mark.parametrize("namespaces", [[], ["staging"]], ids=["cluster", "namespaces"])
def test_the_operator_s_roles_are_what_it_asks_for(namespaces: list[str]) -> None:
    manifests = render(merged(VALUES, {"operator": {"namespaces": namespaces}}))
    wanted = asked(OPERATOR, OPERATOR_WATCHES) | NOT_IN_THE_SOURCE
    assert granted(manifests, "modelops-operator") == wanted


def test_the_builder_s_role_is_what_it_asks_for() -> None:
    wanted = asked(BUILDER, (kubernetes.MODEL_IMAGES,))
    assert granted(render(VALUES), "modelops-builder") == wanted


def test_every_module_of_the_shell_is_looked_at() -> None:
    asking = {path.stem for path in SHELL.glob("*.py") if any(calls(ast.parse(path.read_text())))}
    assert asking <= {*OPERATOR, *BUILDER}
