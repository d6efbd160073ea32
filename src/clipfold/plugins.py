"""A name becomes an object: our own table, then an entry point, then ``module:attr``.

Families are folders with one contract each (reducers, augmentations, decoders, codecs, backbones). A distribution
plugs in through the entry point group ``clipfold.<family>``; anybody else by writing ``my_package.module:Thing``.
"""

from __future__ import annotations

import difflib
import inspect
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from clipfold.errors import PluginError

__all__ = ["check_call", "known_names", "load", "load_builtin", "signature_of"]


def known_names(family: str, table: Mapping[str, str]) -> list[str]:
    """All names of a family that need no ``module:attr``, sorted: our own and those of installed plug-ins."""
    return sorted({*table, *(point.name for point in entry_points(group=f"clipfold.{family}"))})


def load(family: str, name: str, table: Mapping[str, str]) -> Any:
    """Import the object that a user's name stands for.

    Never call this with a name that was read from a manifest, a shard or a checkpoint: ``module:attr`` imports code.
    Use :func:`load_builtin` there.

    Args:
        family: Plural name of the family, such as ``"reducers"``; its entry points are ``clipfold.reducers``.
        name: A key of ``table``, the name of an entry point, or ``"my_package.module:Thing"`` (also found in the
            current directory, as ``python -m`` would).
        table: The family's own members, name -> ``"module:attr"``.

    Raises:
        PluginError: Nothing has this name, or importing it fails.
    """
    if name in table:
        return _import(family, name, table[name])
    for point in entry_points(group=f"clipfold.{family}"):
        if point.name == name:
            return _import(family, name, point)
    if ":" in name:
        return _import(family, name, name)
    known = known_names(family, table)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise PluginError(
        f"unknown name among the {family}: {name!r}, expected one of {', '.join(known)}",
        fix=f"{hint}use one of these names, or my_package.module:Thing for your own",
    )


def load_builtin(family: str, name: str, table: Mapping[str, str]) -> Any:
    """Like :func:`load`, but only for names of ``table``: safe for names that were read from a file.

    Raises:
        PluginError: ``name`` is not in ``table``, or importing it fails.
    """
    if name not in table:
        raise PluginError(
            f"unknown name among the {family}: {name!r}, expected one of {', '.join(sorted(table))}",
            fix="a name that comes from a file may only be one of ours: name your own on the command line instead",
        )
    return _import(family, name, table[name])


def signature_of(family: str, name: str, make: Any, *takes: str) -> inspect.Signature:
    """What a class or function of a family takes; nothing is called.

    Args:
        family: As for :func:`load`.
        name: What the user wrote.
        make: What :func:`load` found.
        *takes: What members of the family are called with, for the message.

    Raises:
        PluginError: It cannot be called, or does not say what it takes.
    """
    try:
        return inspect.signature(make)
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"{name!r} of the {family} is a {type(make).__name__}, expected a class or function that takes "
            f"{' and '.join(takes)}",
            fix="name a class or function that is written in Python",
        ) from error


def check_call(family: str, name: str, make: Any, *arguments: Any, **keywords: Any) -> None:
    """Check that a class or function of a family takes these arguments, without calling it.

    Raises:
        PluginError: It cannot be called, or not with these.
    """
    takes = [*(type(value).__name__ for value in arguments), *(f"{keyword}=" for keyword in keywords)]
    signature = signature_of(family, name, make, *takes)
    try:
        signature.bind(*arguments, **keywords)
    except TypeError as error:
        raise PluginError(
            f"{name!r} of the {family} takes {signature}, expected a class or function that takes "
            f"{' and '.join(takes)}: {error}",
            fix="name one that does, or give its other arguments defaults",
        ) from error


def _import(family: str, name: str, target: str | EntryPoint) -> Any:
    try:
        if isinstance(target, EntryPoint):
            return target.load()
        module, _, attribute = target.partition(":")
        if not module.startswith("clipfold.") and os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.append(os.getcwd())  # the console script, unlike `python -m`, does not look here
        found = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found
    except (ImportError, AttributeError, ValueError) as error:
        raise PluginError(
            f"cannot import {name!r} of the {family}: {type(error).__name__}: {error}",
            fix="check the spelling, and that the package is installed or lies in the current directory",
        ) from error
