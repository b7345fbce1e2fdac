"""The servers of tests/stores, for places in buckets."""

from tests.stores.conftest import server as server
from tests.stores.conftest import start as start
