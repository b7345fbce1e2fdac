"""Makes the two modules that are no tests, faulty_store and second_reader, importable by the tests beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
