"""Changes of clips: batched, random per clip, reproducible from (seed, position), and linear where they can be.

==================  ===============================================================================  ============
name                what it does                                                                     acts on
==================  ===============================================================================  ============
normalise           ``(x - mean) / std`` per channel                                                 channels
brightness          adds a constant                                                                  values
contrast            spreads values about a constant                                                  values
time_reversal       last frame first. Changes what motion means: never in a default recipe           frames
frame_drop          loses frames; shows zero, the last kept frame, or the mean of the kept           frames
horizontal_flip     mirrors left and right. Changes what motion means: never in a default recipe     positions
vertical_flip       mirrors up and down. Changes what motion means: never in a default recipe        positions
column_roll         turns a 360-degree sensor: columns leave on one side and return on the other     positions
erasing             paints a rectangle                                                               positions
==================  ===============================================================================  ============

All of these fold into a reducer's weights. Values are pixels divided by full scale (uint8 by 255, uint16 by 65535,
float by 1); nothing clamps, because a clamp is not linear: what leaves [0, 1] stays outside.
"""

from __future__ import annotations

from clipfold.augment.base import Augmentation, FrameChannel, LinearForm, Params, Spatial
from clipfold.augment.compose import AUGMENTATIONS, RECIPES, Compose, recipe
from clipfold.augment.geometric import ColumnRoll, Erasing, HorizontalFlip, VerticalFlip
from clipfold.augment.photometric import Brightness, Contrast, Normalise
from clipfold.augment.temporal import FrameDrop, TimeReversal

__all__ = [
    "AUGMENTATIONS",
    "RECIPES",
    "Augmentation",
    "Brightness",
    "ColumnRoll",
    "Compose",
    "Contrast",
    "Erasing",
    "FrameChannel",
    "FrameDrop",
    "HorizontalFlip",
    "LinearForm",
    "Normalise",
    "Params",
    "Spatial",
    "TimeReversal",
    "VerticalFlip",
    "recipe",
]
