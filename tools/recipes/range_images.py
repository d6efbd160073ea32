r"""Points to range images: rows are beams, columns are directions, a pixel is how far the nearest return is.

::

                 x forward                 columns: clockwise seen from above, as the sensor turns and as it is seen
          +70 deg  |  -70 deg              from its place: column 0 is the left end of the sector
     column 0  \   |   /  column 700       rows: row 0 is the highest beam
                \  |  /                    16 beams, 140 degrees in steps of 0.2: 16 x 701, both ends included
    y left ------- o
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sweeps import Sweep

__all__ = ["Geometry"]

_FULL_CIRCLE = 360.0


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Which directions a range image shows, and in which unit.

    Args:
        num_rows: Beams.
        elevation_degrees: Of the last row and of row 0; rows between are evenly spaced. Returns more than half a row
            outside are left out. Not used with ``num_rings``.
        num_rings: Rows by the ring that the file gives each point, of so many; several rings may share a row.
        sector_degrees: From the first column's direction to the last one's; 360 is the full circle, whose ends meet.
        step_degrees: From one column to the next.
        unit_metres: What a step of a uint16 value is; ``None`` keeps metres as float32.

    Raises:
        ValueError: A value out of range, or a sector that is no whole number of steps.
    """

    num_rows: int = 16
    elevation_degrees: tuple[float, float] = (-15.0, 15.0)
    num_rings: int | None = None
    sector_degrees: float = 140.0
    step_degrees: float = 0.2
    unit_metres: float | None = 0.002

    def __post_init__(self) -> None:
        low, high = self.elevation_degrees
        if self.num_rows < 1 or (
            self.num_rings is None and (not -90 <= low <= high <= 90 or (low == high) != (self.num_rows == 1))
        ):
            raise ValueError(f"{self.num_rows} beams from {low} to {high} degrees: expected low < high (equal for one)")
        if self.num_rings is not None and self.num_rings < self.num_rows:
            raise ValueError(f"{self.num_rings} rings for {self.num_rows} rows: expected at least one ring a row")
        if not 0 < self.sector_degrees <= _FULL_CIRCLE or self.step_degrees <= 0:
            raise ValueError(f"a sector of {self.sector_degrees} degrees in steps of {self.step_degrees}")
        steps = self.sector_degrees / self.step_degrees
        if abs(steps - round(steps)) > 1e-6 * steps:
            raise ValueError(f"a sector of {self.sector_degrees} degrees is {steps:g} steps of {self.step_degrees}")
        if self.unit_metres is not None and self.unit_metres <= 0:
            raise ValueError(f"a unit of {self.unit_metres} metres")

    @property
    def num_columns(self) -> int:
        """Both ends of a sector are columns; those of the full circle are one."""
        return round(self.sector_degrees / self.step_degrees) + (self.sector_degrees < _FULL_CIRCLE)

    def project(
        self, sweep: Sweep, *, center_degrees: float = 0.0, intensity_max: float | None = None
    ) -> tuple[NDArray[np.uint16 | np.float32], Counter[str]]:
        """The range image of one sector. Where several returns fall into a pixel, the nearest one wins.

        Args:
            sweep: Points.
            center_degrees: Direction of the middle of the sector, counter-clockwise from x.
            intensity_max: A second channel holds the intensity of the same return, this value being the full scale
                (65535, or 1.0 in float); ``None`` makes no such channel.

        Returns:
            (C, H, W), uint16 or float32, 0 where there is no return; and how many points ended where: ``"shown"``,
            ``"no return"``, ``"outside the sector"``, ``"outside the rows"``, ``"too far"``, ``"behind a nearer one"``.

        Raises:
            ValueError: There is no intensity, or no ring, or a ring of a higher number.
        """
        if intensity_max is not None and sweep.intensity_N is None:
            raise ValueError("the points have no intensity")
        is_point_N1 = np.isfinite(sweep.points_N3).all(axis=1, keepdims=True)
        points_N3 = np.where(is_point_N1, sweep.points_N3, 0.0)
        ranges_N = np.sqrt((points_N3**2).sum(axis=1))
        values_N = ranges_N if self.unit_metres is None else np.rint(ranges_N / self.unit_metres)
        row_N, column_N = self._rows(points_N3, sweep.ring_N, ranges_N), self._columns(points_N3, center_degrees)
        left = {
            "no return": values_N <= 0,
            "outside the sector": (column_N < 0) | (column_N >= self.num_columns),
            "outside the rows": (row_N < 0) | (row_N >= self.num_rows),
            "too far": values_N > (np.inf if self.unit_metres is None else 65535),
        }
        counts: Counter[str] = Counter()
        keep = np.ones(len(ranges_N), bool)
        for reason, is_left in left.items():
            counts[reason] = int((keep & is_left).sum())
            keep &= ~is_left
        kept = np.flatnonzero(keep)
        cell = row_N[kept] * self.num_columns + column_N[kept]
        nearest_first = np.lexsort((ranges_N[kept], cell))
        cells, first = np.unique(cell[nearest_first], return_index=True)
        shown = kept[nearest_first[first]]
        counts["behind a nearer one"] = len(kept) - len(shown)
        counts["shown"] = len(shown)
        image = np.zeros((1 if intensity_max is None else 2, self.num_rows * self.num_columns), self._dtype)
        image[0, cells] = values_N[shown]
        if intensity_max is not None and sweep.intensity_N is not None:
            share = np.clip(np.nan_to_num(sweep.intensity_N[shown]) / intensity_max, 0.0, 1.0)
            image[1, cells] = share if self.unit_metres is None else np.rint(share * 65535)
        return image.reshape(-1, self.num_rows, self.num_columns), +counts

    @property
    def _dtype(self) -> type[np.uint16] | type[np.float32]:
        return np.float32 if self.unit_metres is None else np.uint16

    def _columns(self, points_N3: NDArray[np.float64], center_degrees: float) -> NDArray[np.int64]:
        azimuth = np.degrees(np.arctan2(points_N3[:, 1], points_N3[:, 0]))
        clockwise = (center_degrees - azimuth + 180.0) % _FULL_CIRCLE - 180.0
        is_circle = self.sector_degrees == _FULL_CIRCLE  # its middle column looks to the centre, column 0 away from it
        middle = self.num_columns // 2 if is_circle else (self.num_columns - 1) / 2
        column_N: NDArray[np.int64] = np.floor(clockwise / self.step_degrees + middle + 0.5).astype(np.int64)
        if is_circle:
            column_N %= self.num_columns
        return column_N

    def _rows(
        self, points_N3: NDArray[np.float64], ring_N: NDArray[np.int64] | None, ranges_N: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        if self.num_rings is not None:
            if ring_N is None:
                raise ValueError("the points have no ring: leave --rings out, rows are then by elevation")
            if len(ring_N) and not 0 <= ring_N.min() <= ring_N.max() < self.num_rings:
                raise ValueError(f"a ring {int(ring_N.max())}, expected 0 to {self.num_rings - 1}")
            return self.num_rows - 1 - ring_N * self.num_rows // self.num_rings
        low, high = self.elevation_degrees
        height = np.divide(points_N3[:, 2], ranges_N, out=np.zeros_like(ranges_N), where=ranges_N > 0)
        elevation = np.degrees(np.arcsin(np.clip(height, -1.0, 1.0)))
        step = (high - low) / (self.num_rows - 1) if self.num_rows > 1 else 1.0
        row_N: NDArray[np.int64] = np.floor((high - elevation) / step + 0.5).astype(np.int64)
        return row_N
