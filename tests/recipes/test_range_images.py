"""Which pixel a point falls into, and which point a pixel shows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

RECIPES = Path(__file__).resolve().parents[2] / "tools" / "recipes"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``Geometry``, and ``points(azimuth, elevation, range, ...)`` in degrees and metres."""
    monkeypatch.syspath_prepend(str(RECIPES))
    from range_images import Geometry
    from sweeps import Sweep

    def points(*spherical, intensity=None, ring=None) -> Sweep:
        azimuth, elevation, distance = np.array(spherical, np.float64).T
        azimuth, elevation = np.radians(azimuth), np.radians(elevation)
        flat = distance * np.cos(elevation)
        return Sweep(
            points_N3=np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.sin(elevation)], axis=1),
            intensity_N=None if intensity is None else np.array(intensity, np.float64),
            ring_N=None if ring is None else np.array(ring),
        )

    return SimpleNamespace(Geometry=Geometry, points=points)


def pixels(image: np.ndarray) -> dict[tuple[int, int], float]:
    return {(row, column): image[0, row, column].item() for row, column in np.argwhere(image[0]).tolist()}


def test_corners_of_the_default_are_16_x_701(here):
    sweep = here.points((70, 15, 1), (-70, 15, 2), (70, -15, 3), (-70, -15, 4), (0, 1, 5), (0.2, 1, 6))
    image, counts = here.Geometry().project(sweep)
    assert (image.shape, image.dtype) == ((1, 16, 701), np.uint16)
    assert pixels(image) == {
        (0, 0): 500,
        (0, 700): 1000,
        (15, 0): 1500,
        (15, 700): 2000,
        (7, 350): 2500,
        (7, 349): 3000,
    }
    assert counts == {"shown": 6}


def test_borders_nearest_and_counts(here):
    sweep = here.points(
        *[(10, 1, 8), (10, 1, 4), (10.05, 1.4, 6)],  # one pixel
        *[(70.09, 15.9, 1), (70.11, 0, 1), (180, 0, 1)],  # half a step and half a row belong to the outermost pixel
        *[(0, 16.1, 1), (0, -16.1, 1), (0, 1, 131.07), (5, 1, 131.072), (0, 0, 0.0009)],
        *[(0, 0, 0), (0, 0, 1), (0, 0, 1)],
    )
    sweep.points_N3[-2:, 0] = np.nan, np.inf
    image, counts = here.Geometry().project(sweep)
    assert pixels(image) == {(7, 300): 2000, (0, 0): 500, (7, 350): 65535}
    assert counts == {
        "shown": 3,
        "behind a nearer one": 2,
        "outside the sector": 2,
        "outside the rows": 2,
        "too far": 1,
        "no return": 4,
    }


def test_float_metres_and_intensity(here):
    sweep = here.points((0, 1, 200.125), (0, 1, 300), (1, 1, 2.5), intensity=[51, 255, 300])
    image, _ = here.Geometry(unit_metres=None).project(sweep, intensity_max=255)
    assert (image.shape, image.dtype) == ((2, 16, 701), np.float32)
    assert pixels(image) == {(7, 350): 200.125, (7, 345): 2.5}
    assert image[1, 7, [350, 345]].tolist() == [np.float32(0.2), 1.0]
    image, _ = here.Geometry().project(sweep, intensity_max=255)
    assert image[1, 7, [350, 345]].tolist() == [0, 65535]  # 200 m are beyond what 16 bits hold
    with pytest.raises(ValueError, match="no intensity"):
        here.Geometry().project(here.points((0, 0, 1)), intensity_max=1)


def test_rows_by_ring(here):
    sweep = here.points((0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 0, 4), ring=[0, 1, 30, 31])
    image, _ = here.Geometry(num_rings=32, unit_metres=1).project(sweep)
    assert pixels(image) == {(15, 350): 1, (15, 345): 2, (0, 340): 3, (0, 335): 4}
    with pytest.raises(ValueError, match="a ring 31, expected 0 to 15"):
        here.Geometry(num_rings=16).project(sweep)
    with pytest.raises(ValueError, match="no ring"):
        here.Geometry(num_rings=16).project(here.points((0, 0, 1)))


def test_full_circle_and_other_centres(here):
    sweep = here.points((0, 0, 1), (90, 0, 2), (180, 0, 3), (-90, 0, 4), (-179.9, 0, 5))
    circle = here.Geometry(num_rows=1, elevation_degrees=(0, 0), sector_degrees=360, step_degrees=1, unit_metres=1)
    assert circle.num_columns == 360
    image, counts = circle.project(sweep)
    assert pixels(image) == {(0, 180): 1, (0, 90): 2, (0, 0): 3, (0, 270): 4}
    assert counts == {"shown": 4, "behind a nearer one": 1}
    sector = here.Geometry(num_rows=1, elevation_degrees=(0, 0), sector_degrees=10, step_degrees=1, unit_metres=1)
    image, _ = sector.project(sweep, center_degrees=180)
    assert (image.shape, pixels(image)) == ((1, 1, 11), {(0, 5): 3})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_rows": 0}, "0 beams"),
        ({"elevation_degrees": (15, -15)}, "low < high"),
        ({"num_rings": 8}, "at least one ring a row"),
        ({"step_degrees": 0.3}, "is 466.667 steps"),
        ({"sector_degrees": 400}, "a sector of 400"),
        ({"unit_metres": 0}, "a unit of 0"),
    ],
)
def test_wrong_geometry(here, wrong, message):
    with pytest.raises(ValueError, match=message):
        here.Geometry(**wrong)
