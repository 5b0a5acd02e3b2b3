"""The served core of `test_core`, for every test of what it answers."""

from tests.node.wiring.test_core import config as config
from tests.node.wiring.test_core import served as served
