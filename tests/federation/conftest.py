"""One hub process for each module's tests: a SuperLink takes seconds to start."""

from collections.abc import Iterator

import pytest

from tests.federation.ground import Town, found


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = found(tmp_path_factory.mktemp("town"), patience_s=20.0)
    town.start()
    yield town
    town.stop()
