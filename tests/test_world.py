from __future__ import annotations

from typing import Any

import pytest

from clipfold import World


def test_torchrun_describes_the_world() -> None:
    assert World.from_env({}) == World(rank=0, world_size=1, local_rank=0)
    assert World.from_env({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == World(5, 8, 1)
    assert World().is_main
    assert not World(1, 2).is_main


@pytest.mark.parametrize("values", [(1, 1, 0), (-1, 2, 0), (0, 0, 0), (0, 1, -1)])
def test_an_impossible_world_is_refused(values: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="world_size >= 1"):
        World(*values)


def test_a_broken_variable_is_named() -> None:
    with pytest.raises(ValueError, match="WORLD_SIZE: 'two'"):
        World.from_env({"WORLD_SIZE": "two"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": "0"}, "rank of a world: '0', expected a whole number"),
        ({"world_size": 2.0}, "world_size of a world: 2.0"),
        ({"local_rank": None}, "local_rank of a world: None"),
        ({"rank": False}, "rank of a world: False"),
    ],
)
def test_what_is_no_whole_number_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        World(**values)
