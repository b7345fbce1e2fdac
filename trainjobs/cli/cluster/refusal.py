"""What the API server's refusals mean, in our words: which cluster, as whom, and what to do. Pure."""

from __future__ import annotations

from gentrain_operator.kube.errors import ApiError
from trainjobs.api.errors import JobError
from trainjobs.api.job import GROUP

# How OpenSSL and the resolver say it, and what that means to whoever has only a kubeconfig.
_UNREACHABLE = {
    "Connection refused": "nothing listens there: is the cluster running, is a tunnel or VPN down?",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not the one in the kubeconfig: a new cluster, or something in between",
    "Name or service not known": "the name does not resolve: a VPN, or a cluster that is gone",
    "nodename nor servname": "the name does not resolve: a VPN, or a cluster that is gone",
    "Temporary failure in name resolution": "the name does not resolve: no network, or a VPN that is down",
    "timed out": "no answer in time: a firewall, a VPN that is down, or a cluster that is busy",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: is the address in the kubeconfig that of an API server?",
    "Connection reset by peer": "it hung up: a proxy in between, or a server that is starting",
    "RemoteDisconnected": "it hung up: a proxy in between, or a server that is starting",
}


def refusal(error: ApiError, doing: str, where: str) -> JobError:
    """`doing`: "list the jobs in namespace team-a"; `where`: context, server and user."""
    status, message = error.status, " ".join(error.message.split())
    if status == 0:
        cause, how = _cause(message)
        return JobError("GTJ0302", f"cannot {doing}: the cluster does not answer", where=where, why=cause, how=how)
    if status == 401:
        how = "log in again: your cloud's tool renews what the kubeconfig holds"
        return JobError("GTJ0303", f"cannot {doing}: not logged in", where=where, why="the server does not accept the credentials", how=how)
    if status == 403 and "exceeded quota" in message:
        how = "remove finished jobs (gtj ls, gtj rm), or have the quota raised: kubectl describe resourcequota"
        return JobError("GTJ0203", f"cannot {doing}: the namespace's quota is used up", where=where, why=message, how=how)
    if status == 403:
        return JobError("GTJ0303", f"cannot {doing}: not allowed", where=where, why=message or "403 Forbidden", how=_allow(message))
    if status == 404 and GROUP not in message and "namespaces" in message:
        how = "create it (kubectl create namespace NAME), or name another with -n"
        return JobError("GTJ0303", f"cannot {doing}: there is no such namespace", where=where, why=message, how=how)
    if status == 404 and not message:
        how = "install it: helm install gentrain charts/gentrain; or is this another cluster than you mean?"
        why = f"the server does not know {GROUP}"
        return JobError("GTJ0304", f"cannot {doing}: Gentrain is not installed in this cluster", where=where, why=why, how=how)
    if status == 400 and not message:
        how = "is the address in the kubeconfig that of an API server, with https:// before it?"
        return JobError("GTJ0302", f"cannot {doing}: that is no API server", where=where, why=f"400 {error.reason}", how=how)
    if status in (400, 422) and "denied" not in message:
        how = "update what is older: gtj, or the definitions in the cluster"
        return JobError("GTJ0301", f"cannot {doing}: the cluster's definition of a job refuses it", where=where, why=message, how=how)
    if status in (400, 422):
        return JobError(
            "GTJ0303", f"cannot {doing}: a policy of the cluster refuses it", where=where, why=message, how="change what it names"
        )
    how = "the server is busy: try again in a moment" if status == 429 else "try again; its administrator may know more"
    return JobError("GTJ0302", f"cannot {doing}: the server failed", where=where, why=f"{status} {error.reason}: {message}", how=how)


def passing(error: ApiError) -> bool:
    """Whether it may be gone in a moment: whoever waits for hours goes on."""
    return error.status in (0, 429) or error.status >= 500


def _cause(message: str) -> tuple[str, str]:
    """The few words that matter of urllib3's, and what they mean."""
    for words, how in _UNREACHABLE.items():
        if words in message:
            return words, how
    return message[:300], "kubectl version asks the same server"


def _allow(message: str) -> str:
    if "denied" in message:
        return "change what it names, or ask who made the policy"
    return "ask for the role gentrain-editor (gentrain-viewer for reading) in the namespace; kubectl auth can-i --list shows what you may"
