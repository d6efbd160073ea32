"""From the user's files to clips; never sees a shard.

::

    find_sources(root) -> Source -> open_source(source) -> Decoder -> Resize -> read_clips(source, options) -> ReadClip

Nothing here imports torch: worker processes that decode start fast.
"""
