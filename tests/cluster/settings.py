"""What the programs of a node are told: pure functions of where the node lives."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.archive import PAUSE
from tests.cluster.identities import Identities

NODE = "10.250.0.1"
PODS, SERVICES = "10.244.0.0/24", "10.96.0.0/16"
PLUGINS = "/usr/lib/cni"


def network() -> str:
    """CNI: every pod has a cable of its own to the node, so that all that pods say to each other goes through the node's packet filter."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugins = [{"type": "ptp", "ipMasq": False, "ipam": ipam}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins})


def containerd(folder: Path) -> str:
    # Without CAP_SYS_RESOURCE runc may not lower an OOM score, and every sandbox would fail: restrict_oom_score_adj.
    return f"""version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{folder}/cni"
"""


def kubelet(folder: Path, identities: Identities) -> str:
    """As JSON, which is YAML. CPU limits bind nobody: two cores are shared by all pods of a test, and what they ask for decides how."""
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "cpuCFSQuota": False,
            "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
            "clusterDNS": [NODE],
            "clusterDomain": "cluster.local",
            "resolvConf": "/dev/null",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(identities["ca.crt"])},
            },
            "authorization": {"mode": "Webhook"},
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
        }
    )


def corefile(identities: Identities) -> str:
    return f""".:53 {{
  bind {NODE}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {identities.admin} node
    ttl 2
  }}
  cache 2
}}
"""


def arguments(folder: Path, identities: Identities) -> dict[str, list[str]]:
    """Command lines without the program, by program, in the order in which they are started."""
    admin = f"--kubeconfig={identities.admin}"
    return {
        "etcd": [
            f"--data-dir={folder}/etcd",
            "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ],
        "kube-apiserver": [
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={NODE}",
            "--secure-port=6443",
            f"--tls-cert-file={identities['api.crt']}",
            f"--tls-private-key-file={identities['api.key']}",
            f"--client-ca-file={identities['ca.crt']}",
            f"--token-auth-file={identities['tokens.csv']}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={identities['accounts.pub']}",
            f"--service-account-signing-key-file={identities['accounts.key']}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={identities['kubelet-client.crt']}",
            f"--kubelet-client-key={identities['kubelet-client.key']}",
        ],
        "kube-controller-manager": [
            admin,
            f"--service-account-private-key-file={identities['accounts.key']}",
            f"--root-ca-file={identities['ca.crt']}",
            "--use-service-account-credentials",
            "--leader-elect=false",
        ],
        "kube-scheduler": [admin, "--leader-elect=false"],
        "containerd": ["-c", f"{folder}/containerd.toml"],
        "kubelet": [
            f"--config={folder}/kubelet.json",
            f"--kubeconfig={identities['node.kubeconfig']}",
            f"--root-dir={folder}/kubelet",
            f"--node-ip={NODE}",
            "--hostname-override=node-1",
        ],
        "kube-proxy": [
            admin,
            "--hostname-override=node-1",
            "--conntrack-max-per-core=0",
            "--proxy-mode=iptables",
            f"--cluster-cidr={PODS}",
        ],
        # Of all that it can do, only network policies.
        "kube-router": [
            admin,
            "--hostname-override=node-1",
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--enable-cni=false",
            "--health-port=0",
            f"--service-cluster-ip-range={SERVICES}",
        ],
        "coredns": ["-conf", f"{folder}/Corefile"],
    }
