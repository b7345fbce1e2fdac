"""Data where people have it trains, and a run that was killed amid an epoch goes on with exactly the samples that were due.

The undisturbed run of each source has two workers. One like it is killed and goes on with one worker; one with one worker goes on with two.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.data.places.hub_server import hub_server
from tests.data.real.recorded import recording
from tests.data.real.sources import SOURCES, repositories
from tests.stores.servers import Start

sys.path.insert(0, str(Path(__file__).parents[2] / "equivalence"))

import group

pytestmark = pytest.mark.slow

STEPS, BATCH = 25, 6  # 150 samples: two epochs and a half
KILLED = 85  # amid the second epoch, two steps behind a commit
FORKED = str(Path(__file__).parent / "forked.py")


def spec(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "custom": {"objective": "tests.data.real.recorded:build"},
        "data": {"holdout": 0.1, **data},
        "training": {"steps": STEPS, "seed": 3, "batch": {"global": BATCH}},
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": 4}},
        "evaluation": {"samples": 1, "everySteps": STEPS},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, start: Start) -> dict[str, dict[str, Path]]:
    """Of each source that can be had here the three runs, at their ends."""
    root = tmp_path_factory.mktemp("real")
    environment: dict[str, str] = {}
    runs: dict[str, dict[str, Path]] = {}
    with hub_server(repositories()) as hub:
        environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(root / "hub")}
        for name, (where, filled) in SOURCES.items():
            server: Any = None
            if where == "hub":
                server = hub
            elif where:
                try:
                    server = start(where)
                except pytest.skip.Exception:
                    continue
                environment |= server.environ()
            data = filled(server, root / "data" / name)
            runs[name] = {kind: group.prepare(root / f"{name}-{kind}", spec(data)) for kind in ("whole", "shrunk", "grown")}
        shrunk, grown = [run["shrunk"] for run in runs.values()], [run["grown"] for run in runs.values()]
        for run in (*shrunk, *grown):
            (run / "killed").write_text(str(KILLED))
        trained([run["whole"] for run in runs.values()] + shrunk, 2, root, environment)
        for run in shrunk:
            (run / "killed").unlink()
        trained(shrunk + grown, 1, root, environment)
        for run in grown:
            (run / "killed").unlink()
        trained(grown, 2, root, environment)
    return runs


def trained(folders: list[Path], size: int, root: Path, environment: dict[str, str]) -> None:
    group.run_group(size, [str(folder) for folder in folders], root, script=FORKED, extra=environment)


@pytest.mark.parametrize("name", SOURCES)
def test_what_a_run_sees_does_not_depend_on_where_it_was_killed(name: str, runs: dict[str, dict[str, Path]]) -> None:
    if name not in runs:
        pytest.skip(f"the server of {name} is not in the cache; GENTRAIN_STORES=all makes it")
    whole = recording(runs[name]["whole"] / "seen")
    assert sorted(whole) == list(range(STEPS * BATCH))
    for kind in ("shrunk", "grown"):
        assert recording(runs[name][kind] / "seen") == whole
        rows = [json.loads(line) for line in (runs[name][kind] / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if "loss" in row] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("name", SOURCES)
def test_every_epoch_holds_every_sample_once(name: str, runs: dict[str, dict[str, Path]]) -> None:
    if name not in runs:
        pytest.skip(f"the server of {name} is not in the cache; GENTRAIN_STORES=all makes it")
    seen = recording(runs[name]["whole"] / "seen")
    first = Counter(seen.values())
    length = max(position for position in seen if len({seen[before] for before in range(position + 1)}) == position + 1) + 1
    assert len(first) == length, "the first epoch has all that there is"
    assert {seen[position] for position in range(length, 2 * length)} == set(first)
