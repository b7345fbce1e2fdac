"""One thread of a process at a time loads a trained model of transformers.

While transformers loads one it replaces methods of PreTrainedModel (initialization.no_tie_weights, of 5.23), and puts back what it found.
Of two threads that overlap the later one has found the other's replacement: from then on no model of the process ties its weights, and
nothing says so, or a base has not all of them.
"""

from __future__ import annotations

from threading import RLock

ALONE = RLock()
