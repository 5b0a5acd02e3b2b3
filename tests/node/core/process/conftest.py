"""The served core of `test_core`, for every test of what it answers."""

from tests.node.core.process.test_process import config as config
from tests.node.core.process.test_process import served as served
