"""Looking at data: pictures of clips, and a survey of files before they are converted.

::

    corpus, shard, video, folder --> clips.py --> Gallery --> sheet.py (png), animation.py (gif), page.py (html)
    folder of files --> survey.py: worker processes probe, hash, encode samples --> Survey --> advice.py, tables.py

Nothing here imports torch, but for the report on the environment.
"""
