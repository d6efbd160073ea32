"""Clips become logits: reducers fold the time axis into one image, backbones classify it.

::

    pixels_BSCHW ──reduce──> maps_BKHW ──finish──> image_BCHW ──backbone──> logits
                     ↑
      weights_BKSC: normalisation and foldable augmentations are pulled back into them (folding.py)
"""
