"""Clips on disk: codecs, tars, indices and the manifest.

::

    corpus/
      dataset.json                  manifest.py: format, spec, codec, classes, totals, mean and std, provenance
      sources.jsonl  skipped.jsonl  convert.py
      train/shards.npy              index.py: one row a shard, with the sha256 of its tar and of its index
      train/train-000000.tar        writer.py: plain POSIX tar, <key>.<extension>, <key>.cls, <key>.json
      train/train-000000.index.npy  index.py: one row a sample, what the stream reads
      train/train-000000.idx        writer.py: the same offsets for DALI

    dataset.json --sha256--> shards.npy --sha256--> tar, index --xxh3--> every sample

Nothing here is pickled, and nothing that is read is ever unpickled.
"""
