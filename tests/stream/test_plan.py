"""The order of reading: exactly once, the same for any number of ranks, and never changed by accident."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfold import rng
from clipfold.errors import ResumeError
from clipfold.stream.plan import ORDER_VERSION, Plan, PlanState, default_order, fingerprint

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any)


def pairs(plan: Plan, start: int, stop: int) -> list[tuple[int, int]]:
    places = plan.locate(np.arange(start, stop))
    return list(zip(places.shard.tolist(), places.index.tolist(), strict=True))


def everything(counts: list[int]) -> list[tuple[int, int]]:
    return [(shard, index) for shard, num in enumerate(counts) for index in range(num)]


@settings(max_examples=150, deadline=None)
@given(
    counts=COUNTS,
    seed=st.integers(0, 2**64 - 1),
    lanes=st.none() | st.integers(1, 70),
    block=st.none() | st.integers(1, 50),
    run=st.integers(1, 5),
    epoch=st.integers(0, 10**6),
)
def test_every_sample_exactly_once_an_epoch(
    counts: list[int], seed: int, lanes: int | None, block: int | None, run: int, epoch: int
) -> None:
    plan = Plan(counts, seed=seed, num_lanes=lanes, block_size=block, run_length=run)
    num = plan.num_samples
    for e in (epoch, epoch + 1):
        places = plan.locate(np.arange(e * num, (e + 1) * num))
        assert set(places.epoch.tolist()) == {e}
        assert sorted(zip(places.shard.tolist(), places.index.tolist(), strict=True)) == everything(counts)


@settings(max_examples=100, deadline=None)
@given(counts=COUNTS, lanes=st.integers(1, 12), block=st.integers(1, 20), data=st.data())
def test_a_position_means_the_same_however_it_is_asked_for(
    counts: list[int], lanes: int, block: int, data: Any
) -> None:
    plan = Plan(counts, seed=3, num_lanes=lanes, block_size=block)
    q = data.draw(st.lists(st.integers(0, 4 * plan.num_samples), min_size=1, max_size=60))  # any order, any epochs
    together = plan.locate(q)
    fresh = Plan(counts, seed=3, num_lanes=lanes, block_size=block)
    alone = [fresh.locate([one]) for one in q]
    for name in ("epoch", "shard", "index"):
        assert getattr(together, name).tolist() == [int(getattr(one, name)[0]) for one in alone]


@settings(max_examples=100, deadline=None)
@given(start=st.integers(0, 10**13), num=st.integers(0, 300), padding=st.integers(0, 10), lanes=st.integers(1, 70))
def test_slots_of_a_step(start: int, num: int, padding: int, lanes: int) -> None:
    plan = Plan([1000], num_lanes=lanes)
    slots = plan.step(start, start + num, num + padding)
    assert sorted(slots[:num].tolist()) == list(range(start, start + num))
    assert slots[num:].tolist() == [-1] * padding
    lane = slots[:num] % lanes
    if lanes > 1 and num >= 3 * lanes:  # each pair has both of its lanes
        assert (lane[1:] != lane[:-1]).all()
        assert (np.diff(np.minimum(lane // 2, lanes // 2 - 1)) >= 0).all()


def test_lanes_read_few_shards_at_a_time() -> None:
    plan = Plan([100] * 2000, seed=1)
    places = plan.locate(plan.step(0, 6400, 6400)[:800])  # the first of 8 equal shares: 8 of 64 lanes, 100 draws each
    # a block of 3,125 neighbours lies on at most 33 shards, so 8 lanes cannot have touched more than 8 x 33
    assert len(np.unique(places.shard)) <= 8 * 33


def slow_twin(counts: list[int], q: int, *, seed: int, lanes: int, block: int) -> tuple[int, int]:
    """The formula for one position, in whole numbers and lists."""
    num = sum(counts)
    epoch, lane = q // num, q % lanes
    in_lane = [len([x for x in range(epoch * num, (epoch + 1) * num) if x % lanes == one]) for one in range(lanes)]
    draw = len([x for x in range(epoch * num, q) if x % lanes == lane])
    size = min(block, in_lane[lane] - draw // block * block)
    order = rng.permutation(size, seed, 3, epoch, lane, draw // block).tolist()
    place = sum(in_lane[:lane]) + draw // block * block + order[draw % block]
    shards = rng.permutation(len(counts), seed, 1, epoch).tolist()
    laid = [(shard, index) for shard in shards for index in range(counts[shard])]
    return laid[(place + rng.hash_key(seed, 2, epoch) % num) % num]


@settings(max_examples=60, deadline=None)
@given(counts=COUNTS.filter(lambda counts: sum(counts) < 150), lanes=st.integers(1, 9), block=st.integers(1, 20))
def test_the_plan_is_its_slow_twin(counts: list[int], lanes: int, block: int) -> None:
    plan = Plan(counts, seed=9, num_lanes=lanes, block_size=block)
    start = 3 * plan.num_samples - 5
    expected = [slow_twin(counts, q, seed=9, lanes=lanes, block=block) for q in range(max(start, 0), start + 25)]
    assert pairs(plan, max(start, 0), start + 25) == expected


def test_epochs_and_seeds_differ() -> None:
    counts = [7, 0, 9, 30]
    orders = {tuple(pairs(Plan(counts, seed=seed), 46 * e, 46 * e + 46)) for seed in range(3) for e in range(3)}
    assert len(orders) == 9


def test_runs_stay_together() -> None:
    plan = Plan([100], seed=5, num_lanes=1, block_size=50, run_length=10)
    index = plan.locate(np.arange(100)).index.reshape(10, 10)
    offset = index[0, 0] % 10
    assert ((index - index[:, :1]) % 100 == np.arange(10)).all()
    assert (index[:, 0] % 10 == offset).all()


def test_not_shuffled_is_the_order_of_the_shards() -> None:
    plan = Plan([2, 0, 3], shuffle=False, num_lanes=7)
    assert pairs(plan, 0, 5) == everything([2, 0, 3])
    assert pairs(plan, 5, 12) == [*everything([2, 0, 3]), (0, 0), (0, 1)]
    assert plan.step(3, 5, 4).tolist() == [3, 4, -1, -1]


def test_default_order() -> None:
    assert default_order(1) == (1, 1)
    assert default_order(65_536) == (1, 65_536)
    assert default_order(65_537) == (64, 1025)
    assert default_order(10**9) == (64, 4096)


def test_substitutes_are_samples_and_differ_by_attempt() -> None:
    counts = [3, 0, 50, 7]
    plan = Plan(counts, seed=2)
    drawn = [plan.substitute(11, attempt) for attempt in range(1, 200)]
    assert set(drawn) <= set(everything(counts))
    assert len(set(drawn)) > 40
    assert drawn[0] == Plan(counts, seed=2).substitute(11, 1) != Plan(counts, seed=2).substitute(12, 1)


def test_the_formula_has_not_changed() -> None:
    """Literal values: when this fails, saved states no longer continue. Raise ORDER_VERSION, then renew them."""
    assert ORDER_VERSION == 1
    plan = Plan([5, 3, 0, 8], seed=7)
    assert pairs(plan, 0, 6) == GOLDEN_SMALL
    lanes = Plan([1000] * 500, seed=7)
    assert (lanes.num_lanes, lanes.block_size) == (64, 4096)
    q = np.array([0, 1, 63, 64, 499_999, 500_000, 10**12])
    places = lanes.locate(q)
    assert places.epoch.tolist() == [0, 0, 0, 0, 0, 1, 2_000_000]
    assert list(zip(places.shard.tolist(), places.index.tolist(), strict=True)) == GOLDEN_LANES
    runs = Plan([100] * 3, seed=1, num_lanes=3, block_size=20, run_length=4)
    assert pairs(runs, 300, 306) == GOLDEN_RUNS
    assert [plan.substitute(4, attempt) for attempt in (1, 2, 3)] == GOLDEN_SUBSTITUTES


GOLDEN_SMALL = [(0, 2), (3, 0), (3, 4), (0, 3), (1, 2), (0, 4)]
GOLDEN_LANES = [(31, 472), (483, 776), (127, 622), (425, 150), (489, 169), (182, 935), (330, 121)]
GOLDEN_RUNS = [(0, 99), (2, 95), (1, 99), (2, 0), (2, 96), (0, 0)]
GOLDEN_SUBSTITUTES = [(1, 0), (0, 1), (3, 1)]


def state(**changes: Any) -> PlanState:
    values: dict[str, Any] = {
        "order_version": 1, "split": "train", "fingerprint": "ab", "num_samples": 9, "seed": 0, "shuffle": 1,
        "num_lanes": 1, "block_size": 9, "run_length": 1, "position": 4,
    }  # fmt: skip
    return PlanState(**values | changes)


def test_state_through_json() -> None:
    assert PlanState.from_json(json.loads(json.dumps(state().to_json()))) == state()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"position": -1}, "position"),
        ({"position": "4"}, "position"),
        ({"seed": True}, "seed"),
        ({"split": 3}, "split"),
        ({"color": 3}, r"unknown \['color'\]"),
    ],
)
def test_a_broken_state_is_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ResumeError, match=match):
        PlanState.from_json(state().to_json() | change)


def test_a_state_without_a_name_is_refused() -> None:
    value = state().to_json()
    del value["seed"]
    with pytest.raises(ResumeError, match=r"missing \['seed'\]"):
        PlanState.from_json(value)
    with pytest.raises(ResumeError, match="expected a dict"):
        PlanState.from_json([])  # type: ignore[arg-type]


def test_a_state_of_something_else_is_refused_by_name() -> None:
    state(position=100).check_fits(state())
    with pytest.raises(ResumeError, match=r"fingerprint 'zz', expected 'ab'") as caught:
        state(fingerprint="zz").check_fits(state())
    assert "corpus" in caught.value.fix
    with pytest.raises(ResumeError, match=r"seed 3, expected 0; num_lanes 2, expected 1"):
        state(seed=3, num_lanes=2).check_fits(state())
    with pytest.raises(ResumeError, match="order version"):
        state(order_version=2, seed=3).check_fits(state())


@pytest.mark.parametrize("counts", [[], [0, 0], [3, -1], [[1]]])
def test_counts_that_make_no_order(counts: Any) -> None:
    with pytest.raises(ValueError, match="counts"):
        Plan(counts)


@pytest.mark.parametrize("bad", [{"seed": -1}, {"seed": 1.5}, {"num_lanes": 0}, {"block_size": 0}, {"run_length": 0}])
def test_values_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Plan([5], **bad)


def test_blocks_that_would_fill_the_memory_are_refused() -> None:
    with pytest.raises(ValueError, match="smaller block_size"):
        Plan([10**9], num_lanes=64, block_size=10**8)


def test_fingerprints_tell_tables_apart() -> None:
    kind = np.dtype([("number", "<i4"), ("num_samples", "<i8"), ("sha256", "V32")])
    table = np.zeros(3, kind)
    other = table.copy()
    other["sha256"][1] = b"x" * 32
    assert fingerprint(table) == fingerprint(table.copy()) != fingerprint(other)
    other = table.copy()
    other["num_samples"][2] = 1
    assert fingerprint(table) != fingerprint(other)
