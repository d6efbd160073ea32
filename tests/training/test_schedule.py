from __future__ import annotations

import pytest

from clipfold.training.schedule import learning_rate_factor


def test_it_rises_and_falls() -> None:
    factors = [learning_rate_factor(done / 1000, warmup=0.1) for done in range(1001)]
    assert 0 < factors[0] < 0.05
    assert factors[100] == 1.0
    assert factors[-1] == pytest.approx(0.0, abs=1e-15)
    assert factors[:101] == sorted(factors[:101])
    assert factors[100:] == sorted(factors[100:], reverse=True)
    assert learning_rate_factor(0.55, warmup=0.1) == pytest.approx(0.5)


def test_no_warmup_starts_at_the_peak_and_more_than_all_is_all() -> None:
    assert learning_rate_factor(0.0, warmup=0.0) == 1.0
    assert learning_rate_factor(1.5, warmup=0.0) == pytest.approx(0.0, abs=1e-15)
