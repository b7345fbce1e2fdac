"""GPUDirect-TCPX (A3 High) and -TCPXO (A3 Mega) of GKE Standard: what workers get for them. Pure.

Sources, read in 2026: GKE documentation, "Maximize GPU network bandwidth in Standard mode clusters"; of
GoogleCloudPlatform/container-engine-accelerators gpudirect-tcpx/nccl-test-latest.yaml and nccl-config-latest.yaml, and
gpudirect-tcpxo/nccl-test-latest.yaml and README.md (the release of 9 January 2026, for which the daemon's flags are).

The daemon's image is the profile's to name: it must be of the release of the NCCL plugin that the cluster's installer puts on the nodes,
and only who runs the cluster knows that. Not tried on a cloud.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from gentrain_operator.fragment import Fragment, Sidecar
from trainjobs.api.profile import ProfileSpec

# The GPUs of the nodes that have the fabric, and which machines those are.
NODES = {"tcpx": ("h100-80gb", "a3-highgpu-8g"), "tcpxo": ("h100-mega-80gb", "a3-megagpu-8g")}
GPUS = 8

_LIBRARIES = {"/usr/local/nvidia/lib64": "/home/kubernetes/bin/nvidia/lib64"}
_FOUND = {"LD_LIBRARY_PATH": "/usr/local/nvidia/lib64"}
_SOCKET = {"/run/tcpx": "/run/tcpx"}
_APERTURES = {"/dev/aperture_devices": "/dev/aperture_devices"}
_HOST = {"/hostsysfs": "/sys", "/hostprocsysfs": "/proc/sys"}  # the daemon steers flows through both

# nccl-config-latest.yaml; NCCL finds the daemon's socket by the last.
_TCPX = {
    "NCCL_SOCKET_IFNAME": "eth0",
    "NCCL_CROSS_NIC": "0",
    "NCCL_ALGO": "Ring",
    "NCCL_PROTO": "Simple",
    "NCCL_NSOCKS_PERTHREAD": "4",
    "NCCL_SOCKET_NTHREADS": "1",
    "NCCL_MAX_NCHANNELS": "8",
    "NCCL_MIN_NCHANNELS": "8",
    "NCCL_DYNAMIC_CHUNK_SIZE": "524288",
    "NCCL_P2P_NET_CHUNKSIZE": "524288",
    "NCCL_P2P_PCI_CHUNKSIZE": "524288",
    "NCCL_P2P_NVL_CHUNKSIZE": "1048576",
    "NCCL_NET_GDR_LEVEL": "PIX",
    "NCCL_P2P_PXN_LEVEL": "0",
    "NCCL_GPUDIRECTTCPX_SOCKET_IFNAME": "eth1,eth2,eth3,eth4",
    "NCCL_GPUDIRECTTCPX_CTRL_DEV": "eth0",
    "NCCL_GPUDIRECTTCPX_TX_BINDINGS": "eth1:8-21,112-125;eth2:8-21,112-125;eth3:60-73,164-177;eth4:60-73,164-177",
    "NCCL_GPUDIRECTTCPX_RX_BINDINGS": "eth1:22-35,124-139;eth2:22-35,124-139;eth3:74-87,178-191;eth4:74-87,178-191",
    "NCCL_GPUDIRECTTCPX_PROGRAM_FLOW_STEERING_WAIT_MICROS": "1000000",
    "NCCL_GPUDIRECTTCPX_FORCE_ACK": "0",
    "NCCL_GPUDIRECTTCPX_TX_COMPLETION_NANOSLEEP": "1000",
    "NCCL_GPUDIRECTTCPX_UNIX_CLIENT_PREFIX": "/run/tcpx",
}
# What else NCCL needs is in the plugin's own profile on the node; paths in it are a shell's to work out, so they are here.
_TCPXO = {
    "NCCL_LIB_DIR": "/usr/local/nvidia/lib64",
    "NCCL_FASTRAK_LLCM_DEVICE_DIRECTORY": "/dev/aperture_devices",
    "NCCL_TUNER_CONFIG_PATH": "/usr/local/nvidia/lib64/a3plus_tuner_config.textproto",
    "NCCL_SHIMNET_GUEST_CONFIG_CHECKER_CONFIG_FILE": "/usr/local/nvidia/lib64/a3plus_guest_config.textproto",
    "GENTRAIN_NCCL_ENV": "/usr/local/nvidia/lib64/nccl-env-profile.sh",
}


def interfaces(networks: Sequence[str]) -> dict[str, str]:
    """Annotations by which GKE attaches networks as eth1, eth2 and so on."""
    found = [{"interfaceName": "eth0", "network": "default"}]
    found += [{"interfaceName": f"eth{number}", "network": name} for number, name in enumerate(networks, 1)]
    return {"networking.gke.io/default-interface": "eth0", "networking.gke.io/interfaces": json.dumps(found)}


def fragment(profile: ProfileSpec) -> Fragment:
    """Of a worker that has a whole node of them."""
    daemon = f"{profile.fabric}-daemon"
    return Fragment(
        annotations={**interfaces(profile.networks), f"devices.gke.io/container.{daemon}": _devices(profile.fabric)},
        environment={**_FOUND, **(_TCPX if profile.fabric == "tcpx" else _TCPXO)},
        host_paths=_LIBRARIES,
        written_paths=_SOCKET if profile.fabric == "tcpx" else _APERTURES,
        capabilities=("IPC_LOCK",) if profile.fabric == "tcpx" else (),
        sidecars=(_daemon(profile.fabric, daemon, profile.fabric_image or ""),),
    )


def misplaced(name: str, profile: ProfileSpec, kind: str | None, gpus: int) -> str:
    """Why workers of so many GPUs cannot have the profile's fabric, and the way out; "" when they can."""
    wanted, machine = NODES[profile.fabric]
    if kind != wanted or profile.accelerator.per_node != GPUS:
        return (
            f"GTJ0131 fabric {profile.fabric} of ComputeProfile {name} is that of {machine} nodes: write accelerator.type {wanted} and "
            f"perNode {GPUS}, or fabric: none in the profile"
        )
    if gpus != GPUS:
        return (
            f"GTJ0131 a worker of {gpus} GPUs cannot have fabric {profile.fabric} of ComputeProfile {name}: its daemon has the GPUs and "
            f"interfaces of a whole node. Write compute.gpusPerWorker: {GPUS}, or fabric: none in the profile"
        )
    return ""


def _devices(fabric: str) -> str:
    """The devices that GKE's injector gives the daemon, which asks for no GPU: YAML, as the injector reads it."""
    paths = [*(f"/dev/nvidia{number}" for number in range(GPUS)), "/dev/nvidiactl", "/dev/nvidia-uvm"]
    return "".join(f"- path: {path}\n" for path in (*paths, *(("/dev/dmabuf_import_helper",) if fabric == "tcpxo" else ())))


def _daemon(fabric: str, name: str, image: str) -> Sidecar:
    if fabric == "tcpx":  # backslashes and quotes are the vendor's: no shell takes them off before the daemon
        setup = ("--setup_param", r"\"--verbose 128 2 0 \"")
        flags = ("--gpu_nic_preset", "a3vm", "--gpu_shmem_type", "fd", "--uds_path", "/run/tcpx", *setup)
        command = ("/tcpgpudmarxd/build/app/tcpgpudmarxd", *flags)
        return Sidecar(name, image, command, ("NET_ADMIN",), _FOUND, {**_LIBRARIES}, {**_SOCKET, **_HOST})
    entry = "/fts/entrypoint_rxdm_container.sh"
    shell = ("/bin/sh", "-c", f"chmod 755 {entry} && exec {entry} --num_hops=2 --num_nics=8")
    return Sidecar(name, image, shell, ("NET_ADMIN", "NET_BIND_SERVICE"), _FOUND, {**_LIBRARIES}, _HOST)
