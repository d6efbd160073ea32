"""Temporal reducers: (B, S, C, H, W) in, (B, C_out, H, W) out. One file a member, one table of names.

===============  ==================================================================================================
name             what it does
===============  ==================================================================================================
temporal_conv    the reference model: temporal convolution, ReLU, 3x3 convolution. Linear part: folds. The default.
mean             the mean over time, no parameters. Folds. A baseline that cannot tell forward from backward.
attention        frame weights from the content of the frames. Not linear: reads normalised pixels.
===============  ==================================================================================================

Your own is a subclass of :class:`TemporalReducer`, named by an entry point of the group ``clipfold.reducers`` or as
``my_package.module:Class``.
"""

from __future__ import annotations

from typing import Any

from clipfold.clip import ClipSpec
from clipfold.errors import PluginError
from clipfold.models.reducers.base import TemporalReducer
from clipfold.plugins import check_call, load, signature_of

__all__ = ["REDUCERS", "TemporalReducer", "make_reducer"]

REDUCERS: dict[str, str] = {
    "attention": "clipfold.models.reducers.attention:Attention",
    "mean": "clipfold.models.reducers.mean:Mean",
    "temporal_conv": "clipfold.models.reducers.temporal_conv:TemporalConv",
}


def make_reducer(name: str, spec: ClipSpec, **options: Any) -> TemporalReducer:
    """Build a reducer by name.

    Args:
        name: A name of ``REDUCERS``, of an entry point ``clipfold.reducers``, or ``my_package.module:Class``.
        spec: The clips that it will be given.
        **options: The member's own keyword arguments.

    Raises:
        PluginError: No reducer has this name, or what it names is no :class:`TemporalReducer`.
        ValueError: An option that the reducer does not have, or a value that does not fit the clips.
    """
    make = load("reducers", name, REDUCERS)
    if isinstance(make, type) and not issubclass(make, TemporalReducer):
        raise _no_reducer(name, make.__name__)
    parameters = signature_of("reducers", name, make, "spec").parameters
    known = list(parameters)[1:]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = sorted(set(options) - set(known))
    if unknown and not takes_any:
        expected = f"expected some of {', '.join(known)}" if known else f"but {name} has no options; leave them out"
        raise ValueError(f"options of reducer {name!r}: {', '.join(unknown)}, {expected}")
    check_call("reducers", name, make, spec, **options)
    reducer = make(spec, **options)
    if not isinstance(reducer, TemporalReducer):
        raise _no_reducer(name, type(reducer).__name__)
    return reducer


def _no_reducer(name: str, found: str) -> PluginError:
    return PluginError(
        f"reducer {name!r} is a {found}, expected a TemporalReducer", fix="subclass clipfold.TemporalReducer"
    )
