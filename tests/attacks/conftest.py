"""The bench of the containers' tests."""

from tests.containers.conftest import bench as bench
