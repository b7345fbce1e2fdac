"""Which service accounts a job may name: the chart's policy, asked on a real API server by somebody who may create jobs only."""

from __future__ import annotations

import json
import time

import pytest

from tests.chart.helm import CHART, NAMESPACE, RELEASE, on
from tests.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.slow


class User:
    """An editor of jobs, by the chart's own role."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.cluster = cluster

    def apply(self, account: str | None, name: str = "job", **spec: object) -> str:
        """What the server said against it; "" when it took the job."""
        pod = {"pod": {"serviceAccountName": account}} if account is not None else {}
        base = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 10}, "compute": {"gpusPerWorker": 0}}
        job = {
            "apiVersion": "gentrain.dev/v1alpha1",
            "kind": "GenerativeTrainingJob",
            "metadata": {"name": name},
            "spec": {**base, **pod, **spec},
        }
        done = self.cluster.kubectl("-n", "team", "--as=user", "apply", "-f", "-", stdin=json.dumps(job), check=False)
        return "" if done.returncode == 0 else done.stderr

    def until(self, account: str, refused: bool, name: str) -> str:
        """Tries until the API server, which learns of a policy a moment after it was written, has made up its mind."""
        deadline = time.monotonic() + 60
        while bool(said := self.apply(account, name)) is not refused:
            assert time.monotonic() < deadline, said
            self.cluster.kubectl("-n", "team", "delete", "gtj", name, "--ignore-not-found")
            time.sleep(0.1)
        return said


@pytest.fixture
def user(server: ControlPlane) -> User:
    server.kubectl("create", "namespace", "team")
    on(server, "install", RELEASE, str(CHART), "--create-namespace", "--set=admissionPolicy.serviceAccounts={trainer}")
    server.wait_for_kinds("gentrain.dev", 2)
    server.kubectl("create", "clusterrolebinding", "user", f"--clusterrole={NAMESPACE}-gentrain-editor", "--user=user")
    return User(server)


def test_accounts_have_to_be_allowed(user: User) -> None:
    said = user.until("cluster-admin", True, "first")
    assert 'GTJ0111 spec.pod.serviceAccountName: jobs in namespace team may not run as "cluster-admin"' in said
    assert "gentrain.dev/service-accounts" in said
    # Allowed by the chart, and no account at all, which is the ComputeProfile's or the namespace's default.
    assert user.apply("trainer", "second") == ""
    assert user.apply(None, "third") == ""
    assert "may not run as" in user.apply("train", "fourth")
    # A job does not get there by an update either.
    assert "may not run as" in user.apply("cluster-admin", "third")

    # Allowed by the namespace, whose annotation the user cannot write.
    annotate = ("annotate", "namespace", "team", "gentrain.dev/service-accounts=one, two")
    assert "forbidden" in user.cluster.kubectl(*annotate, "--as=user", check=False).stderr
    user.cluster.kubectl(*annotate)
    user.until("two", False, "fifth")
    assert user.apply("one", "sixth") == ""
    assert "may not run as" in user.apply("three", "seventh")

    # Taken off the list again: the job that has it can be suspended, another cannot be made.
    user.cluster.kubectl("annotate", "namespace", "team", "gentrain.dev/service-accounts-")
    user.until("two", True, "eighth")
    assert user.apply("two", "fifth", suspend=True) == ""
    status = json.dumps({"status": {"phase": "Suspended"}})
    user.cluster.kubectl("-n", "team", "patch", "gtj", "fifth", "--subresource=status", "--type=merge", "-p", status)
