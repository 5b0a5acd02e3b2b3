from collections.abc import Iterator

import pytest

from tests.end_to_end.house import House, Permit


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    """A hub and two hospitals with data, connected. Tests leave it running and unpaused."""
    built = House.build(2)
    yield built
    built.close()


@pytest.fixture(scope="session")
def rogue(house: House) -> Permit:
    """A permit for the misbehaving job, accepted by both hospitals."""
    return house.grant("rogue", house.rogue, *house.hospitals)
