"""Variables of the node's fabric, read from its script as a shell would."""

from __future__ import annotations

import subprocess
from pathlib import Path

from trainjobs.workers.fabric import NAMED, adopt, variables

SCRIPT = """#!/bin/bash
# comment: export NCCL_NO=1
export NCCL_NET=gIB
export NCCL_CROSS_NIC=0  # one rail
  export NCCL_TUNER_CONFIG_PATH="/usr/local/gib/configs/tuner config.txtpb"
export NCCL_PATH_OF="$HOME/x"
export NCCL_PLAIN='$HOME'
export LD_PRELOAD=/evil.so
echo hello
"""


def test_plain_values_are_those_of_a_shell(tmp_path: Path) -> None:
    (tmp_path / "set.sh").write_text(SCRIPT)
    found, left = variables(SCRIPT)
    said = subprocess.run(
        ["bash", "-c", f". {tmp_path}/set.sh >/dev/null; env -0"], capture_output=True, text=True, check=True, env={"HOME": "/h"}
    ).stdout
    shell = dict(one.split("=", 1) for one in said.split("\0") if one.startswith("NCCL_"))
    assert left == ["NCCL_PATH_OF"]
    assert found == {name: value for name, value in shell.items() if name not in left}


def test_what_the_job_sets_stays_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "set.sh").write_text(SCRIPT)
    environment, said = {NAMED: str(tmp_path / "set.sh"), "NCCL_NET": "mine"}, list[str]()
    adopt(environment, said.append)
    assert (environment["NCCL_NET"], environment["NCCL_CROSS_NIC"]) == ("mine", "0")
    assert "LD_PRELOAD" not in environment
    assert len(said) == 1
    assert "NCCL_PATH_OF" in said[0]
    assert "spec.pod.env" in said[0]
    adopt({**environment, "NCCL_PATH_OF": "/x"}, said.append)
    assert len(said) == 1, "what is set already is not asked for"


def test_a_node_without_the_script() -> None:
    environment, said = {NAMED: "/nowhere/set.sh"}, list[str]()
    adopt(environment, said.append)
    assert set(environment) == {NAMED}
    assert "may not use the node's fabric" in said[0]
    adopt({}, said.append)
    assert len(said) == 1
