"""Checkpoints: object stores, and a commit log on them. Knows nothing of training and imports no torch."""

from trainjobs.checkpoints.checkpoints import Checkpoints as Checkpoints
from trainjobs.checkpoints.checkpoints import locate as locate
from trainjobs.checkpoints.log import Fenced as Fenced
from trainjobs.checkpoints.manifest import Corrupt as Corrupt
from trainjobs.checkpoints.manifest import RankManifest as RankManifest
from trainjobs.checkpoints.record import Commit as Commit
from trainjobs.checkpoints.record import CommitStatus as CommitStatus
from trainjobs.checkpoints.shard import files_below as files_below
from trainjobs.stores.open import open_store as open_store
