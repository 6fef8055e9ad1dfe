"""Whether a pod template keeps to the restricted pod security standard, with a read-only root.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ has the standard. What is not
of the type that a field has is passed over: the API server takes no such pod.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modelops_operator.core.differences import place

Template = Mapping[str, Any]
Check = Callable[[Template], Iterator[str]]

VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
SECCOMP = frozenset({"RuntimeDefault", "Localhost"})
APP_ARMOR = frozenset({"RuntimeDefault", "Localhost"})
APP_ARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"
SELINUX_TYPES = frozenset(
    {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
)
SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
    }
)
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_HANDLERS = (
    *(("startupProbe",), ("readinessProbe",), ("livenessProbe",)),
    *(("lifecycle", "postStart"), ("lifecycle", "preStop")),
)
Place = tuple[str, ...]


def violations(template: Template) -> tuple[str, ...]:
    """Name the fields of a pod template that weaken the standard, and what they must be."""
    return tuple(told for check in CHECKS for told in check(template))


def _host_namespaces(template: Template) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if _spec(template).get(name):
            yield f"spec.{name} must not be true"


def _volume_types(template: Template) -> Iterator[str]:
    for volume in _maps(_spec(template).get("volumes")):
        for kind in sorted(volume.keys() - {"name"} - VOLUMES):
            path = ("spec", "volumes", f"[{volume.get('name')}]", kind)
            yield f"{place(path)} is not among {', '.join(sorted(VOLUMES))}"


def _host_ports(template: Template) -> Iterator[str]:
    for path, container in _containers(template):
        for port in _maps(container.get("ports")):
            if port.get("hostPort"):
                yield f"{place((*path, 'ports', 'hostPort'))} must be absent"


def _host_probes(template: Template) -> Iterator[str]:
    for path, container in _containers(template):
        for way in _HANDLERS:
            for action in ("httpGet", "tcpSocket"):
                if _below(container, *way, action).get("host"):
                    yield f"{place((*path, *way, action, 'host'))} must be absent"


def _annotations(template: Template) -> Iterator[str]:
    for name, value in _below(template, "metadata", "annotations").items():
        fit = value == "runtime/default" or str(value).startswith("localhost/")
        if name.startswith(APP_ARMOR_ANNOTATION) and not fit:
            yield f"metadata.annotations[{name}] must be runtime/default or localhost/..."


def _sysctls(template: Template) -> Iterator[str]:
    for sysctl in _maps(_below(template, "spec", "securityContext").get("sysctls")):
        if sysctl.get("name") not in SYSCTLS:
            yield f"spec.securityContext.sysctls may not hold {sysctl.get('name')}"


def _kernel_profiles(template: Template) -> Iterator[str]:
    """Seccomp, AppArmor, SELinux and Windows' host processes, wherever they are spoken of."""
    for path, context in _contexts(template):
        seccomp = _below(context, "seccompProfile")
        if seccomp and seccomp.get("type") not in SECCOMP:
            yield f"{place((*path, 'seccompProfile', 'type'))} must be {_any_of(SECCOMP)}"
        armor = _below(context, "appArmorProfile")
        if armor and armor.get("type") not in APP_ARMOR:
            yield f"{place((*path, 'appArmorProfile', 'type'))} must be {_any_of(APP_ARMOR)}"
        selinux = _below(context, "seLinuxOptions")
        if selinux.get("type", "") not in SELINUX_TYPES:
            yield f"{place((*path, 'seLinuxOptions', 'type'))} must be {_any_of(SELINUX_TYPES)}"
        for name in ("user", "role"):
            if selinux.get(name):
                yield f"{place((*path, 'seLinuxOptions', name))} must be absent"
        if _below(context, "windowsOptions").get("hostProcess"):
            yield f"{place((*path, 'windowsOptions', 'hostProcess'))} must not be true"


def _users(template: Template) -> Iterator[str]:
    for path, context in _contexts(template):
        if context.get("runAsUser") == 0:
            yield f"{place((*path, 'runAsUser'))} must not be 0"
    whole = _below(template, "spec", "securityContext")
    for path, container in _containers(template):
        context = _below(container, "securityContext")
        if {**whole, **context}.get("runAsNonRoot") is not True:
            yield f"{place((*path, 'securityContext', 'runAsNonRoot'))} must be true"
        if not (context.get("seccompProfile") or whole.get("seccompProfile")):
            told = place((*path, "securityContext", "seccompProfile", "type"))
            yield f"{told} must be {_any_of(SECCOMP)}"


def _privileges(template: Template) -> Iterator[str]:
    for path, container in _containers(template):
        context = _below(container, "securityContext")
        told = (*path, "securityContext")
        if context.get("privileged"):
            yield f"{place((*told, 'privileged'))} must not be true"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{place((*told, 'allowPrivilegeEscalation'))} must be false"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{place((*told, 'readOnlyRootFilesystem'))} must be true"
        if context.get("procMount", "Default") != "Default":
            yield f"{place((*told, 'procMount'))} must be Default"
        capabilities = _below(context, "capabilities")
        if "ALL" not in (capabilities.get("drop") or ()):
            yield f"{place((*told, 'capabilities', 'drop'))} must hold ALL"
        if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
            yield f"{place((*told, 'capabilities', 'add'))} may hold NET_BIND_SERVICE only"


CHECKS: tuple[Check, ...] = (
    _host_namespaces,
    _volume_types,
    _host_ports,
    _host_probes,
    _annotations,
    _sysctls,
    _kernel_profiles,
    _users,
    _privileges,
)


def _spec(template: Template) -> Mapping[str, Any]:
    return _below(template, "spec")


def _containers(template: Template) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    for kind in _CONTAINERS:
        for container in _maps(_spec(template).get(kind)):
            yield ("spec", kind, f"[{container.get('name')}]"), container


def _contexts(template: Template) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Give the security contexts: the pod's and those of its containers."""
    yield ("spec", "securityContext"), _below(template, "spec", "securityContext")
    for path, container in _containers(template):
        yield (*path, "securityContext"), _below(container, "securityContext")


def _below(tree: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for step in path:
        inner = tree.get(step)
        tree = inner if isinstance(inner, Mapping) else {}
    return tree


def _maps(items: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(items, list | tuple):
        yield from (item for item in items if isinstance(item, Mapping))


def _any_of(names: frozenset[str]) -> str:
    return " or ".join(sorted(filter(None, names)))
