"""`python -m tests.chart.install` writes manifests/install and manifests/restricted: the chart, for people without Helm."""

from __future__ import annotations

import re

from tests.chart.helm import NAMESPACE, ROOT, text

PATH = ROOT / "manifests" / "install" / "gentrain.yaml"
RESTRICTED = ROOT / "manifests" / "restricted" / "submitterpolicy.yaml"
HEAD = f"""# What charts/gentrain renders with its defaults, without Helm. The definitions are in manifests/crd:
#
#   kubectl apply --server-side -f manifests/crd -f manifests/install
#
# No images are published: build the Dockerfile's two targets and name yours in place of gentrain-operator and gentrain-trainer.
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""
POLICY = """# For namespaces of jobs that enforce the `restricted` pod security standard, on Kubernetes 1.36 and later:
#
#   kubectl apply --server-side -f manifests/restricted
#
"""


def manifests() -> str:
    return HEAD + plain("--set=crds.enabled=false", "--skip-tests")


def policy() -> str:
    """What the chart adds where the API server has the kind."""
    kind = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
    return POLICY + plain(f"--api-versions={kind}", "--show-only=templates/submitterpolicy.yaml").removeprefix("---\n").rstrip() + "\n"


def plain(*arguments: str) -> str:
    """Helm's marks are left out: nothing of this is a release's."""
    shown = text(*arguments)
    shown = re.sub(r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n|^# Source: .*\n", "", shown, flags=re.MULTILINE)
    return re.sub(r"\n+---", "\n---", shown)


if __name__ == "__main__":
    for path, content in ((PATH, manifests()), (RESTRICTED, policy())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        print(f"wrote {path.relative_to(ROOT)}")
