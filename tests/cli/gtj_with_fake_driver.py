"""The command line, with the fake driver in place of the trainer: python gtj_with_fake_driver.py run -f job.yaml ..."""

from __future__ import annotations

import sys
from pathlib import Path

from trainjobs.cli import driver
from trainjobs.cli.main import main

FAKE = Path(__file__).with_name("fake_driver.py")

driver.command = lambda run, ray: [sys.executable, str(FAKE), str(run)]
main()
