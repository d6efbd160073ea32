"""Sweeps of a rotating LiDAR to range images, and these to shards.

    tools/dev run python tools/recipes/rotating_lidar.py sweeps --out corpus --codec lossless --num-frames 100

Below SRC, a folder of ``.bin`` or ``.pcd`` files is a sequence, a file a turn; folders above it are classes and splits
as for ``clipfold convert``. Where names have ``__`` in them (nuScenes), what stands before it is the sequence.
Each sequence becomes one array, or a folder of 16-bit pictures, in OUT.ranges; those are then converted. Geometry:
tools/recipes/range_images.py; files: tools/recipes/sweeps.py. A second run makes only what is missing or out of date.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from official_lists import Listing, OfficialConvert, Row, run_recipe
from PIL import Image
from range_images import Geometry
from sweeps import is_sweep, read_sweep

from clipfold import ClipfoldError, DecodeError, SourceError
from clipfold.files import is_url, name_of, read_json, write_json, write_whole, writing_whole
from clipfold.ingest.placing import label_and_split
from clipfold.ingest.sources import SPLITS, natural_key
from clipfold.progress import Progress


@dataclass(frozen=True, kw_only=True)
class RotatingLidar(OfficialConvert):
    """Sweeps of a rotating LiDAR (.bin of KITTI and nuScenes, .pcd) to range images, and these to shards.

    SRC holds folders of sweeps, below folders of classes and splits if there are any. Rows are beams, columns are
    directions, a value is the range of the nearest return in units of 2 mm (0 is no return). All other flags are those
    of `clipfold convert`; clips have the size that the geometry gives.
    """

    src: tyro.conf.Positional[str]
    """Local folder of the sweeps."""

    ranges: str | None = None
    """Folder of the range images; OUT.ranges by default."""

    save: Literal["npy", "png"] = "npy"
    """A sequence becomes one array, or a folder of 16-bit pictures."""

    dtype: Literal["uint16", "float32"] = "uint16"
    """uint16 in units of --unit-metres, or float32 in metres."""

    unit_metres: float = 0.002
    """Of uint16; 0.002 reaches 131 m. What is further is left out."""

    beams: int = 16
    """Rows."""

    elevation_degrees: tuple[float, float] = (-15.0, 15.0)
    """Of the lowest and of the highest row, those between evenly spaced; VLP-16 by default."""

    rings: int | None = None
    """Rows by the ring that files give each point, of so many (nuScenes: 32), in place of its elevation."""

    sector_degrees: float = 140.0
    """From the first column's direction to the last one's; 360 is the full circle."""

    step_degrees: float = 0.2
    """From one column to the next."""

    center_degrees: tuple[float, ...] = (0.0,)
    """Middle of each sector, counter-clockwise from x. Every sector becomes a source; a sequence's are one group."""

    intensity: bool = False
    """A second channel with the intensity of the same return (arrays only)."""

    intensity_max: float = 255.0
    """The file's intensity that becomes the full scale: 255 (nuScenes, Velodyne) or 1 (KITTI)."""

    point_values: int | None = None
    """Of .bin: float32 values a point; 5 for .pcd.bin, else 4."""

    labels: Literal["folder", "none"] = "folder"
    """Classes by folder, or no classes (KITTI, nuScenes: their folders are none)."""

    split: str | None = None
    """Shares of train/val/test by sequence within each class, such as 0.8/0.1/0.1. By default the folders train/,
    val/ and test/ of SRC say it, or everything is train."""

    channels: tyro.conf.Suppress[int] = 1
    height: tyro.conf.Suppress[int] = 16
    width: tyro.conf.Suppress[int] = 701
    fps: tyro.conf.Suppress[float | None] = None
    axes: tyro.conf.Suppress[Literal["auto", "SCHW", "SHWC", "SHW"]] = "auto"
    resize: tyro.conf.Suppress[Literal["stretch", "letterbox", "center_crop"]] = "stretch"

    @property
    def geometry(self) -> Geometry:
        """What a range image shows."""
        return Geometry(
            num_rows=self.beams,
            elevation_degrees=self.elevation_degrees,
            num_rings=self.rings,
            sector_degrees=self.sector_degrees,
            step_degrees=self.step_degrees,
            unit_metres=self.unit_metres if self.dtype == "uint16" else None,
        )

    def run(self) -> int:
        """Make the range images, then convert them; a dry run projects the first sweep of each sequence and says so."""
        if self.save == "png" and (self.dtype != "uint16" or self.intensity):
            raise ValueError("--save png holds uint16 ranges: leave out --intensity and --dtype float32, or --save npy")
        if len(set(self.center_degrees)) < max(len(self.center_degrees), 1) or self.intensity_max <= 0:
            raise ValueError("--center-degrees: expected one or more, each once; --intensity-max: above 0")
        if self.dry_run:
            return self._try_out()
        geometry = self.geometry
        sized = replace(
            self,
            channels=2 if self.intensity else 1,
            height=geometry.num_rows,
            width=geometry.num_columns,
            axes="auto" if self.save == "png" else "SCHW" if self.intensity else "SHW",
        )
        return OfficialConvert.run(sized)

    def listing(self) -> Listing:
        sequences = self._sequences()
        folder = self._folder()
        self._check_made_alike(folder)
        rows, counts = [], Counter[str]()
        tops = {name.partition("/")[0] for name in sequences}
        has_splits = tops <= set(SPLITS)
        num_sweeps = sum(map(len, sequences.values())) * len(self.center_degrees)
        with Progress("projecting", total=num_sweeps, unit="sweeps") as progress:
            for name, paths in sequences.items():
                label, split = label_and_split(name, has_splits=has_splits)
                for center in self.center_degrees:
                    made = name if len(self.center_degrees) == 1 else f"{name}@{center:g}"
                    try:
                        counts += self._make(folder / made, paths, center)
                    except (DecodeError, SourceError) as error:
                        if self.on_error == "raise":
                            raise
                        print(f"left out {made}: {error}", file=sys.stderr)
                        continue
                    finally:
                        progress.advance(len(paths))
                    row = Row(
                        path=f"{made}.npy" if self.save == "npy" else made,
                        label=label if self.labels == "folder" else None,
                        split=split,
                        group=name,
                        columns={"center_degrees": center, "num_sweeps": len(paths)},
                    )
                    rows.append(row)
        if not rows:
            raise DecodeError("no sequence could be projected", fix="see the messages above", file=self.src)
        print(_points_text(counts), file=sys.stderr)
        return Listing(rows=rows, classes=[], media_root=str(folder))

    def _try_out(self) -> int:
        sequences = self._sequences()
        counts = Counter[str]()
        for paths in sequences.values():
            for center in self.center_degrees:
                counts += self._project(paths[0], center)[1]
        shape = f"{self.geometry.num_rows} x {self.geometry.num_columns}"
        num_sweeps = sum(map(len, sequences.values()))
        print(
            f"dry run: {len(sequences):,} sequences of {num_sweeps:,} sweeps to range images of {shape}; first sweeps:"
        )
        print(_points_text(counts))
        if self.as_json:
            print(json.dumps({"num_sequences": len(sequences), "num_sweeps": num_sweeps, "points": dict(counts)}))
        return 0

    # ---- which sweeps there are ----

    def _sequences(self) -> dict[str, list[Path]]:
        """Files of each sequence in natural order, by its name."""
        if not Path(self.src).is_dir():
            raise SourceError("no such folder", fix="SRC is the local folder of the sweeps", file=self.src)
        found = defaultdict(list)
        for folder, _, names in os.walk(self.src):
            at = Path(folder).relative_to(self.src).as_posix()
            for name in filter(is_sweep, names):
                before, underscores, _ = name.partition("__")
                parts = [part for part in (at, before if underscores else ".") if part != "."]
                found["/".join(parts) or Path(self.src).resolve().name].append(Path(folder) / name)
        if not found:
            raise SourceError("no sweeps: no .bin or .pcd file", fix="SRC holds folders of sweeps", file=self.src)
        return {
            name: sorted(found[name], key=lambda path: natural_key(path.name))
            for name in sorted(found, key=natural_key)
        }

    # ---- range images ----

    def _folder(self) -> Path:
        beside = name_of(self.out) if is_url(self.out) else self.out.rstrip("/")
        return Path(self.ranges or f"{beside}.ranges")

    def _check_made_alike(self, folder: Path) -> None:
        """What lies in the folder is of the same geometry."""
        options: dict[str, Any] = {
            **json.loads(json.dumps(asdict(self.geometry))),
            "save": self.save,
            "intensity_max": self.intensity_max if self.intensity else None,
            "point_values": self.point_values,
        }
        stamp = folder / "geometry.json"
        is_used = any(path.suffix in (".npy", ".png") for path in folder.rglob("*"))
        if is_used and stamp.exists() and (found := read_json(stamp)) != options:
            changed = [name for name in options if found.get(name) != options[name]]
            raise ClipfoldError(
                f"the folder holds range images of another geometry: {', '.join(changed)} differ",
                fix="name another folder with --ranges (and another --out), or remove this one",
                file=str(folder),
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(stamp, options)

    def _make(self, target: Path, paths: list[Path], center: float) -> Counter[str]:
        """One sequence: ``target`` with .npy behind it, or a folder of pictures."""
        counts = Counter[str]()
        if self.save == "png":
            target.mkdir(parents=True, exist_ok=True)
            wanted = {f"{path.name.partition('.')[0]}.png": path for path in paths}
            if len(wanted) < len(paths) or {each.name for each in target.glob("*.png")} - set(wanted):
                raise ClipfoldError(
                    "two sweeps of one name, or pictures of sweeps that are no longer there",
                    fix="remove the folder of pictures, or use --save npy",
                    file=str(target),
                )
            for name, path in wanted.items():
                if not _is_fresh(target / name, [path]):
                    image_CHW, found = self._project(path, center)
                    counts += found
                    write_whole(target / name, _png(image_CHW[0]))
            return counts
        array = target.with_name(f"{target.name}.npy")
        shape = (len(paths), *((2,) if self.intensity else ()), self.geometry.num_rows, self.geometry.num_columns)
        if _is_fresh(array, paths) and np.load(array, mmap_mode="r", allow_pickle=False).shape == shape:
            return counts
        array.parent.mkdir(parents=True, exist_ok=True)
        with writing_whole(array) as file:
            descr = "<u2" if self.dtype == "uint16" else "<f4"
            np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
            for path in paths:
                image_CHW, found = self._project(path, center)
                counts += found
                file.write(image_CHW.astype(descr).tobytes())
        return counts

    def _project(self, path: Path, center: float) -> tuple[NDArray[Any], Counter[str]]:
        sweep = read_sweep(path, point_values=self.point_values)
        try:
            maximum = self.intensity_max if self.intensity else None
            return self.geometry.project(sweep, center_degrees=center, intensity_max=maximum)
        except ValueError as error:
            raise DecodeError(str(error), file=str(path)) from error


def _is_fresh(made: Path, paths: list[Path]) -> bool:
    return made.exists() and made.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in paths)


def _png(image_HW: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image_HW).save(file, "PNG")
    return file.getvalue()


def _points_text(counts: Counter[str]) -> str:
    total = max(counts.total(), 1)
    parts = [f"{num / total:.1%} {name}" for name, num in counts.most_common() if num]
    return f"{counts.total():,} points: {', '.join(parts) or 'nothing was projected, all range images are there'}"


if __name__ == "__main__":
    sys.exit(run_recipe(RotatingLidar))
