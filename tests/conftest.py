"""What every test shares: one thread, the real media, and skips that name what is missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

REQUIRED = {name for name in os.environ.get("CLIPFOLD_REQUIRE", "").split(",") if name}


@pytest.fixture(scope="session")
def skip_without() -> Callable[[str, str], None]:
    """``skip_without(name, reason)`` skips the test; it fails where ``CLIPFOLD_REQUIRE`` lists ``name``."""

    def skip(name: str, reason: str) -> None:
        if name in REQUIRED:
            pytest.fail(f"CLIPFOLD_REQUIRE lists {name}: {reason}")
        pytest.skip(reason)

    return skip


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """More threads than cores are worse than slow (tests run beside each other)."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def media(skip_without: Callable[[str, str], None]) -> Path:
    """The folder of real media: ``CLIPFOLD_MEDIA``, or ``../shared/media``."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("CLIPFOLD_MEDIA", root.parent / "shared" / "media"))
    if not (folder / "videos").is_dir():
        skip_without("media", f"no real media at {folder} (CLIPFOLD_MEDIA names another folder)")
    return folder
