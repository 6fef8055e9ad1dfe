"""How each part of the platform is configured and started."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sandbox import debian, network, toolchain
from sandbox.places import MTU, Places

NODE_NAME: Final = "node"
PAUSE_IMAGE: Final = "modelops/pause:1"
METRICS_PORT: Final = 4443


@dataclass(frozen=True, slots=True)
class Component:
    """One process of the platform."""

    name: str
    command: Callable[[Places], list[str]]
    in_node: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def _etcd(places: Places) -> list[str]:
    client, peer = f"http://{places.gateway}:2379", f"http://{places.gateway}:2380"
    return [
        str(toolchain.path("etcd")),
        "--data-dir=etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _apiserver(places: Places) -> list[str]:
    pki = places.pki
    return [
        str(toolchain.path("kube-apiserver")),
        f"--advertise-address={places.gateway}",
        f"--bind-address={places.gateway}",
        "--secure-port=6443",
        f"--etcd-servers=http://{places.gateway}:2379",
        f"--service-cluster-ip-range={places.services}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--audit-policy-file={places.state}/audit-policy.yaml",
        f"--audit-log-path={places.state}/log/audit.log",
        "--audit-log-maxsize=200",
    ]


def _controller_manager(places: Places) -> list[str]:
    pki, config = places.pki, places.kubeconfigs / "controller-manager.conf"
    return [
        str(toolchain.path("kube-controller-manager")),
        f"--bind-address={places.gateway}",
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--allocate-node-cidrs=true",
        f"--cluster-cidr={places.pods}",
        "--node-cidr-mask-size=24",
        f"--service-cluster-ip-range={places.services}",
        # An autoscaler looks at new pods after five minutes otherwise, and every 15 seconds.
        "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
        "--horizontal-pod-autoscaler-sync-period=5s",
    ]


def _scheduler(places: Places) -> list[str]:
    config = places.kubeconfigs / "scheduler.conf"
    return [
        str(toolchain.path("kube-scheduler")),
        f"--bind-address={places.gateway}",
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--leader-elect=false",
    ]


def _containerd(_: Places) -> list[str]:
    return [str(toolchain.path("containerd")), "--config=containerd.toml"]


def _kubelet(places: Places) -> list[str]:
    return [
        str(toolchain.path("kubelet")),
        "--config=kubelet.yaml",
        f"--kubeconfig={places.kubeconfigs}/kubelet.conf",
        f"--root-dir={places.state}/kubelet",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={places.node}",
    ]


def _proxy(_: Places) -> list[str]:
    return [str(toolchain.path("kube-proxy")), "--config=kube-proxy.yaml"]


def _coredns(_: Places) -> list[str]:
    return [str(toolchain.path("coredns")), "-conf=Corefile"]


def _metrics(places: Places) -> list[str]:
    config = places.kubeconfigs / "super-admin.conf"
    return [
        str(toolchain.path("metrics-server")),
        f"--bind-address={places.gateway}",
        f"--secure-port={METRICS_PORT}",
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--cert-dir=metrics",
        "--kubelet-insecure-tls",  # the kubelet makes its certificate itself
        "--metric-resolution=10s",
        "--kubelet-request-timeout=5s",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def _registry(_: Places) -> list[str]:
    return [str(debian.registry_program()), "serve", "registry.yaml"]


def _mlflow(places: Places) -> list[str]:
    return [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        f"--host={places.gateway}",
        "--port=5001",
        "--workers=1",
        "--backend-store-uri=sqlite:///mlflow/mlflow.db",
        "--serve-artifacts",
        "--artifacts-destination=mlflow/artifacts",
        # Its guard against DNS rebinding knows only localhost and private names by default.
        f"--allowed-hosts={places.gateway}:5001,{places.gateway},localhost:*",
    ]


MLFLOW: Final = Component(
    "mlflow",
    _mlflow,
    environment={
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONDONTWRITEBYTECODE": "",  # its imports take 12 s where nothing was compiled, else 3
    },
)
REGISTRY: Final = Component("registry", _registry)
ETCD: Final = Component("etcd", _etcd)
APISERVER: Final = Component("kube-apiserver", _apiserver)
CONTAINERD: Final = Component("containerd", _containerd, in_node=True)
CONTROLLER_MANAGER: Final = Component("kube-controller-manager", _controller_manager)
SCHEDULER: Final = Component("kube-scheduler", _scheduler)
KUBELET: Final = Component("kubelet", _kubelet, in_node=True)
PROXY: Final = Component("kube-proxy", _proxy, in_node=True)
COREDNS: Final = Component("coredns", _coredns)
METRICS: Final = Component("metrics-server", _metrics)
ALL: Final = (
    MLFLOW,
    REGISTRY,
    ETCD,
    APISERVER,
    CONTAINERD,
    CONTROLLER_MANAGER,
    SCHEDULER,
    KUBELET,
    PROXY,
    COREDNS,
    METRICS,
)


def command(places: Places, component: Component) -> list[str]:
    """Give the whole command of a component."""
    inside = network.enter(places) if component.in_node else []
    return [*inside, *component.command(places)]


def environment(component: Component) -> dict[str, str]:
    """Give the environment of a component: the machine's, our programs first in PATH."""
    return {
        **os.environ,
        "PATH": f"{toolchain.folders()}{os.pathsep}{os.environ['PATH']}",
        **component.environment,
    }


def write_configuration(places: Places) -> None:
    """Write every configuration file that does not depend on running parts."""
    state = places.state
    for folder in ("log", "etcd", "mlflow", "cni", f"certs.d/{places.registry}"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "etcd").chmod(0o700)
    files: dict[str, str | dict[str, Any]] = {
        "audit-policy.yaml": {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata"}],
        },
        "containerd.toml": _containerd_toml(places),
        "cni/10-pods.conflist": _cni(places),
        "kubelet.yaml": _kubelet_yaml(places),
        "kube-proxy.yaml": {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": places.pods,
            "hostnameOverride": NODE_NAME,
            "clientConnection": {"kubeconfig": str(places.kubeconfigs / "super-admin.conf")},
            "conntrack": {"maxPerCore": 0, "min": 0},
        },
        "Corefile": _corefile(places),
        "registry.yaml": {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(state / "registry")},
                "delete": {"enabled": True},
            },
            "http": {"addr": places.registry},
        },
        f"certs.d/{places.registry}/hosts.toml": (
            f'server = "http://{places.registry}"\n'
            f'[host."http://{places.registry}"]\n  capabilities = ["pull", "resolve"]\n'
        ),
    }
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, indent=1)
        file = state / name
        # kube-proxy ends when its file is written, be it with what was there.
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def bindings() -> list[dict[str, Any]]:
    """Let `admin.conf` administrate, and the API server fetch logs from the kubelet."""
    client = "kube-apiserver-kubelet-client"
    return [
        _binding("kubeadm:cluster-admins", "cluster-admin", "Group", "kubeadm:cluster-admins"),
        _binding("kubelet-api-admin", "system:kubelet-api-admin", "User", client),
    ]


def metrics_api(places: Places) -> list[dict[str, Any]]:
    """Put metrics-server behind its API; as it is no pod, a name from outside leads there."""
    service = {"name": METRICS.name, "namespace": "default"}
    group, version = "metrics.k8s.io", "v1beta1"
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": service,
            "spec": {"type": "ExternalName", "externalName": places.gateway},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{version}.{group}"},
            "spec": {
                "group": group,
                "version": version,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {**service, "port": METRICS_PORT},
            },
        },
    ]


def _binding(name: str, role: str, kind: str, subject: str) -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": kind, "name": subject}],
    }


def kubeadm_configuration(places: Places, pki: Path) -> str:
    """Write what kubeadm needs to know to make certificates and kubeconfigs."""
    documents = (
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": places.gateway, "bindPort": 6443},
            "nodeRegistration": {"name": NODE_NAME, "criSocket": f"unix://{places.socket}"},
        },
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": toolchain.KUBERNETES,
            "clusterName": f"modelops-{places.name}",
            "certificatesDir": str(pki),
            "apiServer": {"certSANs": ["127.0.0.1", "localhost", places.gateway]},
            "etcd": {"external": {"endpoints": [f"http://{places.gateway}:2379"]}},
            "networking": {"podSubnet": places.pods, "serviceSubnet": places.services},
        },
    )
    return "\n---\n".join(json.dumps(document) for document in documents)


def _containerd_toml(places: Places) -> str:
    state, cri = places.state, "io.containerd.cri.v1"
    runc = f'plugins."{cri}.runtime".containerd.runtimes.runc'
    return f"""version = 3
root = "{state}/containerd"
state = "{places.runtime}/containerd"
[grpc]
  address = "{places.socket}"
[ttrpc]
  address = "{places.socket}.ttrpc"
[plugins."{cri}.images"]
  snapshotter = "overlayfs"
  [plugins."{cri}.images".pinned_images]
    sandbox = "{places.registry}/{PAUSE_IMAGE}"
  [plugins."{cri}.images".registry]
    config_path = "{state}/certs.d"
# Set here and not above: there, it would bring the older way of pulling back.
[plugins."io.containerd.transfer.v1.local"]
  max_concurrent_downloads = 8
  max_concurrent_unpacks = {os.cpu_count() or 2}
[plugins."io.containerd.shim.v1.manager"]
  socket_dir = "{places.runtime}/shims"
[plugins."{cri}.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [{runc}]
    runtime_type = "io.containerd.runc.v2"
    [{runc}.options]
      SystemdCgroup = false
      BinaryName = "{toolchain.path("runc")}"
  [plugins."{cri}.runtime".cni]
    bin_dirs = ["{toolchain.folder_of(toolchain.NODE)}"]
    conf_dir = "{state}/cni"
"""


def _cni(places: Places) -> dict[str, Any]:
    # Not a bridge: the answers of a service's pod to its neighbour would take the short way over
    # it, past the address translation, unless the kernel module br_netfilter is there.
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "mtu": MTU,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": places.pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": str(places.runtime / "addresses"),
                },
            }
        ],
    }


def _kubelet_yaml(places: Places) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": places.node,
        "healthzBindAddress": places.node,
        "authentication": {
            "x509": {"clientCAFile": str(places.pki / "ca.crt")},
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{places.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDomain": "cluster.local",
        "clusterDNS": [places.gateway],
        "containerRuntimeEndpoint": f"unix://{places.socket}",
        "podLogsDir": str(places.state / "podlogs"),
        "volumePluginDir": str(places.state / "volume-plugins"),
        "enforceNodeAllocatable": [],
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
        "registerNode": True,
        # One object's status in a second or ten: the demo and the tests wait for these.
        "nodeStatusUpdateFrequency": "10s",
        "syncFrequency": "10s",
        "kubeAPIQPS": 50,
        "kubeAPIBurst": 100,
    }


def _corefile(places: Places) -> str:
    return f"""cluster.local in-addr.arpa {{
    bind {places.gateway}
    errors
    kubernetes {{
        kubeconfig {places.kubeconfigs}/super-admin.conf
        ttl 5
    }}
}}
. {{
    bind {places.gateway}
    errors
    forward . /etc/resolv.conf
    cache 30
}}
"""
