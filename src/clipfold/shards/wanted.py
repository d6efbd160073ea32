"""Which sources a conversion goes through: all at first, later those that are new or were left out."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from dataclasses import replace

from clipfold.errors import SourceError
from clipfold.files import Location, is_url
from clipfold.ingest.sources import Found, Source, find_sources
from clipfold.shards.base import Base
from clipfold.shards.recipe import Recipe
from clipfold.shards.source_list import ListedSource, freeze, reading_fields
from clipfold.shards.summary import NO_NUMBER, Skipped, missing_rows

__all__ = ["Wanted"]


class Wanted:
    """The sources of a conversion.

    Args:
        root: Where they are.
        media_root: Of a table: what its relative paths start from; ``None`` is its folder.
        recipe: Which of them, under which classes and splits.
    """

    def __init__(self, root: Location, *, media_root: Location | None, recipe: Recipe) -> None:
        self._root, self._media_root, self._recipe = root, media_root, recipe
        self._found: dict[int | None, Found] = {}

    def found(self, *, limit: int | None) -> Found:
        """What is there now, under the classes of the corpus; looked for once.

        Raises:
            SourceError: Nothing is there, or nothing passes.
        """
        if limit not in self._found:
            found = find_sources(
                self._root,
                include=self._recipe.include,
                exclude=self._recipe.exclude,
                limit=limit,
                follow_outside=self._recipe.follow_outside,
                media_root=self._media_root,
            )
            self._found[limit] = self._recipe.classes.apply(found)
        return self._found[limit]

    def still_there(self) -> list[Source]:
        """What is there after the corpus was finished: nothing where the folder is there and holds no file any more.

        Raises:
            SourceError: As for :meth:`found`: what was never such a place (a wrong path, a damaged table) is an error.
        """
        try:
            return self.found(limit=None).sources
        except SourceError:
            if is_url(self._root) or not _is_emptied(str(self._root)):
                raise
            return []

    def missing(self, *, listed: Sequence[ListedSource] = (), before: Sequence[Skipped] = ()) -> list[Skipped]:
        """Rows of a table that name no file: sources that are left out although they are in no list.

        Args:
            listed: All sources of the corpus: what was there once is not missing.
            before: What ``skipped.jsonl`` had so far; its rows stay, unless they are sources now.

        Raises:
            SourceError: As for :meth:`found`.
        """
        known = {name for source in listed for name in (source.name, source.name.rpartition("@")[0])}
        now = [each for each in missing_rows(self.found(limit=None)) if self._passes(each.name)]
        names = {each.name for each in now}
        earlier = [each for each in before if each.number == NO_NUMBER and each.name not in names]
        return [each for each in (*earlier, *now) if each.name not in known]

    def _passes(self, name: str) -> bool:
        include, exclude = self._recipe.include, self._recipe.exclude
        is_included = not include or any(fnmatch.fnmatchcase(name, each) for each in include)
        return is_included and not any(fnmatch.fnmatchcase(name, each) for each in exclude)

    def at_first(self) -> list[ListedSource]:
        """The list of a new corpus.

        Raises:
            SourceError: As for :meth:`found`.
            ValueError: As for :func:`clipfold.shards.source_list.freeze`.
        """
        return freeze(self.found(limit=self._recipe.limit).sources, split=self._recipe.split)

    def more(self, base: Base, *, append: bool, retry_skipped: bool) -> list[ListedSource]:
        """What goes into a finished corpus: sources that were left out, under their old numbers, then new ones.

        Raises:
            SourceError: As for :meth:`found`; a new one has no label although all others have.
            ValueError: As for :func:`clipfold.shards.source_list.freeze`.
        """
        fresh = self.new(base.sources) if append else []
        listed = [
            *(self._again(base) if retry_skipped else []),
            *freeze(fresh, split=self._recipe.split, after=base.sources),
        ]
        for source in listed:
            if base.is_labelled and source.label is None:
                raise SourceError(
                    "a new source has no label, but all others of the corpus have",
                    fix="put it into the folder of its class, or leave it out (--exclude)",
                    file=source.name,
                )
        return listed

    def new(self, listed: Sequence[ListedSource]) -> list[Source]:
        """What is there and not in a list; with a limit, no more than it allows.

        Raises:
            SourceError: As for :meth:`found`.
        """
        known = {source.name for source in listed}
        fresh = [source for source in self.found(limit=None).sources if source.name not in known]
        limit = self._recipe.limit
        return fresh if limit is None else fresh[: max(limit - len(known), 0)]

    def _again(self, base: Base) -> list[ListedSource]:
        """Those that were left out and are there, as they are now: somebody may have mended them."""
        there = {source.name: source for source in self.found(limit=None).sources}
        known = {source.number: source for source in base.sources}
        again = []
        for each in base.skipped:
            source = there.get(each.name)
            if each.reason != "partial" and source is not None and each.number in known:
                num_bytes, mtime_ns, reading = source.num_bytes, source.mtime_ns, reading_fields(source)
                again.append(replace(known[each.number], num_bytes=num_bytes, mtime_ns=mtime_ns, reading=reading))
        return again


def _is_emptied(root: str) -> bool:
    """Whether this is a folder that can be looked through and holds no file."""
    if not os.path.isdir(root):
        return False
    try:
        return not any(names for _, _, names in os.walk(root, onerror=_raise))
    except OSError:
        return False


def _raise(error: OSError) -> None:
    raise error
