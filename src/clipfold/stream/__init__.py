"""Shards become batches on a device, in an order that is a formula.

::

    plan.py      position in the infinite order -> (epoch, shard, index)
    samples.py   (shard, index) -> rows of the index files
    storage.py   ranges of local files and URLs -> bytes, straight into their slot
    batch.py     reused host buffers, and how one slot is filled
    transfer.py  a ring of buffers on the device, filled beside the computation
    faults.py    what could not be read
    loader.py    ClipStream: threads, prefetching, state
"""
