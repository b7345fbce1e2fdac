"""`python -m tests.chart.install` writes manifests/install/gentrain.yaml: the chart with its defaults, for people without Helm."""

from __future__ import annotations

import re

from tests.chart.helm import NAMESPACE, ROOT, text

PATH = ROOT / "manifests" / "install" / "gentrain.yaml"
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


def manifests() -> str:
    """Helm's marks are left out: nothing of this is a release's."""
    shown = text("--set=crds.enabled=false", "--skip-tests")
    shown = re.sub(r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n|^# Source: .*\n", "", shown, flags=re.MULTILINE)
    return HEAD + re.sub(r"\n+---", "\n---", shown)


if __name__ == "__main__":
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(manifests())
    print(f"wrote {PATH.relative_to(ROOT)}")
