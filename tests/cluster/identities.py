"""Who may talk to whom in a test cluster: a certificate authority, certificates, tokens, and the kubeconfigs that use them."""

from __future__ import annotations

import json
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Identities:
    """The files of one cluster, in `folder`; its API server is at https://`address`:6443."""

    folder: Path
    address: str

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    @property
    def admin(self) -> Path:
        """The administrator's kubeconfig."""
        return self["admin.kubeconfig"]

    def make(self) -> None:
        """Once for a folder."""
        if self.admin.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=gentrain-test -days 30")
        self._openssl("genrsa -out accounts.key 2048")
        self._openssl("rsa -in accounts.key -pubout -out accounts.pub")
        names = f"IP:127.0.0.1,IP:{self.address},IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc"
        self._certificate("api", "/CN=kube-apiserver", f"subjectAltName={names}")
        # With this one the API server asks kubelets for logs and exec.
        self._certificate("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", "")
        node, admin = secrets.token_hex(16), secrets.token_hex(16)
        self["tokens.csv"].write_text(f'{admin},admin,admin,"system:masters"\n{node},system:node:node-1,node-1,"system:nodes"\n')
        self._kubeconfig("node", node)
        self._kubeconfig("admin", admin)

    def _openssl(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], cwd=self.folder, check=True, capture_output=True)

    def _certificate(self, name: str, subject: str, extension: str) -> None:
        self._openssl(f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj {subject}")
        self[f"{name}.ext"].write_text(extension)
        self._openssl(f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt -days 30 -extfile {name}.ext")

    def _kubeconfig(self, user: str, token: str) -> None:
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "node", "cluster": {"server": f"https://{self.address}:6443", "certificate-authority": str(self["ca.crt"])}}
            ],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "node", "context": {"cluster": "node", "user": user}}],
            "current-context": "node",
        }
        self[f"{user}.kubeconfig"].write_text(json.dumps(content))
