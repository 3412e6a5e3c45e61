"""A world with one deployment, just applied or ready."""

from __future__ import annotations

import pytest

from tests.operator.builders import body
from tests.operator.world import World


@pytest.fixture
async def world() -> World:
    made = World()
    made.cluster.add(body())
    return made


@pytest.fixture
async def ready(world: World) -> World:
    await world.settle()
    assert world.condition("Ready")["status"] == "True"
    world.cluster.writes.clear()
    world.cluster.notices.clear()
    return world
