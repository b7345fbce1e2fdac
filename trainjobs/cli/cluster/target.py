"""Which cluster and namespace a command means: the options, and when a verb that also reads local runs turns to the cluster.

`ls`, `status` and `logs` look at the runs here. With `-n`, `--context`, `--kubeconfig` or `--cluster`, and always as `kubectl gtj`, they
look at the cluster. The other verbs have no local meaning and need no flag.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """What the user said; None is what kubectl would take: KUBECONFIG, its current context, that context's namespace."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None

    def command(self, verb: str, name: str, *more: str, namespace: str) -> str:
        """A command to type next that means the same cluster."""
        words = ["gtj", verb, name, "-n", namespace]
        words += ["--context", self.context] if self.context else []
        words += ["--kubeconfig", self.kubeconfig] if self.kubeconfig else []
        return shlex.join([*words, *more])
