"""Random numbers are formulas: the same anywhere, and random enough."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clipfold.rng import Draw, hash_key, permutation, words

MASK = (1 << 64) - 1


def draw(positions, *, seed=0, place=0):
    return Draw(seed=seed, positions=torch.tensor(positions), place=place)


def mix(bits):
    """splitmix64's finaliser on Python's unbounded integers."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


def test_numbers_do_not_change_between_versions():
    """A resumed run has to see what it would have seen: these values may never change."""
    assert hash_key(0) == 0xE220A8397B1DCDAF  # the first output of splitmix64 with seed 0, as published
    assert hash_key(1, 2) == 13608149317741381227
    assert words(2, 3, 4).tolist() == [53467242405529589, 12023759302271449477]
    assert permutation(8, 1).tolist() == [6, 0, 3, 2, 4, 7, 1, 5]
    assert draw([5, -1, 10**15], seed=7, place=2).words(2).tolist() == [
        [8243243912424678992, 2926235123708384623],
        [6745886754907133567, -6244129455399344256],
        [-2641663069365530890, 7309707545761082756],
    ]


def test_hash_key_depends_on_order_and_length():
    keys = [(), (0,), (0, 0), (1,), (1, 2), (2, 1), (12,), (1, 2, 0)]
    assert len({hash_key(*key) for key in keys}) == len(keys)
    assert hash_key(-1) == hash_key(MASK)


def test_draw_is_the_formula():
    golden = 0x9E3779B97F4A7C15
    seed, position, place = 11, 123_456_789, 4
    base = mix((mix((position + hash_key(seed) + golden) & MASK) + golden + place) & MASK)
    drawn = draw([position], seed=seed, place=place)
    for counter in (1, 2):
        start = mix((base + golden + counter) & MASK)
        expected = [mix((start + step * golden) & MASK) for step in (1, 2, 3)]
        assert [word & MASK for word in drawn.words(3)[0].tolist()] == expected


def test_draws_depend_on_seed_position_place_and_counter_only():
    one = draw([3, 4, 5], seed=1, place=0)
    first, second = one.uniform(6), one.uniform(6)
    again = draw([5], seed=1, place=0)
    assert torch.equal(again.uniform(6)[0], first[2])
    assert torch.equal(again.uniform(6)[0], second[2])
    assert not torch.equal(first, second)
    for other in (draw([3, 4, 5], seed=2), draw([3, 4, 5], seed=1, place=1), draw([6, 7, 8], seed=1)):
        assert not (other.uniform(6) == first).any()


@pytest.mark.parametrize("num_parts", [1, 2, 3, 12])
def test_any_split_of_a_batch_draws_the_same(num_parts):
    positions = torch.arange(12) * 1_000_003
    whole = Draw(seed=3, positions=positions)
    parts = [Draw(seed=3, positions=part) for part in positions.tensor_split(num_parts)]
    for method, arguments in (("uniform", (2, 3)), ("permutation", (9,)), ("normal", ()), ("words", (4,))):
        expected = getattr(whole, method)(*arguments)
        assert torch.equal(torch.cat([getattr(part, method)(*arguments) for part in parts]), expected)
    expected = whole.integers(low=-3, high=9)
    assert torch.equal(torch.cat([part.integers(low=-3, high=9) for part in parts]), expected)


def test_uniform_is_uniform():
    """Chi squared of 64 cells over 200,000 neighbouring positions; also of the pairs of two calls."""
    num, cells = 200_000, 64
    drawn = Draw(seed=0, positions=torch.arange(num))
    first, second = drawn.uniform(), drawn.uniform()
    assert first.min() >= 0
    assert first.max() < 1
    for cell in ((first * cells).long(), (first * 8).long() * 8 + (second * 8).long()):
        counts = torch.bincount(cell, minlength=cells).double()
        chi_squared = ((counts - num / cells) ** 2 / (num / cells)).sum().item()
        # 63 degrees of freedom: mean 63, standard deviation sqrt(126) = 11.2; six of them either way
        assert abs(chi_squared - (cells - 1)) < 6 * math.sqrt(2 * (cells - 1))


def test_neighbours_are_not_correlated():
    num = 200_000
    numbers = Draw(seed=9, positions=torch.arange(num)).uniform(2) - 0.5
    for one, other in ((numbers[:-1, 0], numbers[1:, 0]), (numbers[:, 0], numbers[:, 1])):
        correlation = (one * other).mean().item() * 12
        assert abs(correlation) < 6 / math.sqrt(num)  # six standard deviations of a mean of independent products


def test_integers_bernoulli_and_normal():
    num = 100_000
    drawn = Draw(seed=1, positions=torch.arange(num))
    integers = drawn.integers(low=-2, high=3)
    assert sorted(integers.unique().tolist()) == [-2, -1, 0, 1, 2]
    assert torch.equal(draw([4]).integers(low=6, high=7), torch.tensor([6]))
    # six standard deviations: sqrt(0.3 * 0.7 / num) for a share, 1 / sqrt(num) for a mean, sqrt(2 / num) for a variance
    assert abs(drawn.bernoulli(0.3).double().mean().item() - 0.3) < 6 * math.sqrt(0.21 / num)
    assert drawn.bernoulli(1.0).all()
    assert not drawn.bernoulli(0.0).any()
    normal = drawn.normal()
    assert normal.isfinite().all()
    assert abs(normal.mean().item()) < 6 / math.sqrt(num)
    assert abs(normal.var().item() - 1) < 6 * math.sqrt(2 / num)


@pytest.mark.parametrize(("low", "high"), [(3, 3), (4, 1), (0, (1 << 31) + 1)])
def test_integers_refuse_a_bad_range(low, high):
    with pytest.raises(ValueError, match="range of random integers"):
        draw([0]).integers(low=low, high=high)


def test_permutations_are_permutations():
    rows = Draw(seed=0, positions=torch.arange(500)).permutation(7)
    assert torch.equal(rows.sort(dim=1).values, torch.arange(7).expand(500, -1))
    assert len({tuple(row) for row in rows.tolist()}) > 400  # of 5,040 orders, 500 draws repeat about 24
    assert np.array_equal(np.sort(permutation(1000, 5)), np.arange(1000))
    assert not np.array_equal(permutation(1000, 5), permutation(1000, 6))


@pytest.mark.gpu
def test_the_gpu_draws_the_same(skip_without):
    if not torch.cuda.is_available():
        skip_without("cuda", "no CUDA device")
    positions = torch.arange(100)
    on_cpu, on_gpu = Draw(seed=2, positions=positions), Draw(seed=2, positions=positions.cuda())
    assert torch.equal(on_gpu.words(5).cpu(), on_cpu.words(5))
    assert torch.equal(on_gpu.uniform(5).cpu(), on_cpu.uniform(5))
