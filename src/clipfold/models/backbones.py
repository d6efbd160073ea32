"""Image networks by name: every classification model of torchvision, entry points, and your own."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from clipfold.errors import PluginError
from clipfold.plugins import check_call, load

__all__ = ["backbone_names", "make_backbone"]

_OPTIONS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


@functools.cache
def backbone_names() -> tuple[str, ...]:
    """The names of torchvision's classification models, sorted."""
    from torchvision import models

    return tuple(sorted(models.list_models(module=models)))


def make_backbone(
    name: str, *, num_classes: int, in_channels: int = 3, size: tuple[int, int] | None = None
) -> nn.Module:
    """Build an image network with random weights.

    Args:
        name: A classification model of torchvision, an entry point of ``clipfold.backbones``, or
            ``my_package.module:make``; the last two are called with ``num_classes`` and ``in_channels``.
        num_classes: Number of logits, at least 1.
        in_channels: Channels of the pictures. Other than 3, a torchvision model gets a new first convolution.
        size: (H, W) of the pictures, to check that a network of torchvision can take them.

    Returns:
        A module (B, in_channels, H, W) -> (B, num_classes).

    Raises:
        PluginError: No backbone has this name, or what it names does not take ``num_classes`` and ``in_channels``, or
            gives no module.
        ValueError: A number out of range, or pictures that the network cannot take.
    """
    if num_classes < 1 or in_channels < 1:
        raise ValueError(f"num_classes {num_classes} and in_channels {in_channels}, expected at least 1 each")
    make = load("backbones", name, {known: f"torchvision.models:{known}" for known in backbone_names()})
    model = _build(make, name, num_classes, in_channels)
    if size is not None and name in backbone_names():
        _check_size(model, name, num_classes, (in_channels, *size))
    return model


def _build(make: Any, name: str, num_classes: int, in_channels: int) -> nn.Module:
    if name in backbone_names():
        model = make(weights=None, num_classes=num_classes, **_OPTIONS.get(name, {}))
        if in_channels != 3:
            _replace_stem(model, name, in_channels)
    else:
        numbers = {"num_classes": num_classes, "in_channels": in_channels}
        check_call("backbones", name, make, **numbers)  # before anything is called: the name may be any function's
        model = make(**numbers)
    if not isinstance(model, nn.Module):
        raise PluginError(
            f"backbone {name!r} is a {type(model).__name__}, expected a torch.nn.Module",
            fix="name a class or function that takes num_classes= and in_channels= and returns a module",
        )
    return model


def _replace_stem(model: nn.Module, name: str, in_channels: int) -> None:
    """Give the first convolution another number of input channels, with weights spread as before."""
    for path, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d) or layer.in_channels != 3:
            continue
        stem = nn.Conv2d(
            in_channels,
            layer.out_channels,
            kernel_size=layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
        )
        nn.init.normal_(stem.weight, std=float(layer.weight.detach().std()))
        parent, _, attribute = path.rpartition(".")
        setattr(model.get_submodule(parent), attribute, stem)
        return
    raise ValueError(f"backbone {name!r} has no first convolution of 3 channels; let the reducer give 3 channels")


def _check_size(model: nn.Module, name: str, num_classes: int, shape: tuple[int, ...]) -> None:
    """Run the network on pictures without content: shapes alone, no arithmetic."""
    picture = "x".join(map(str, shape))
    state = {key: value.to("meta") for key, value in [*model.named_parameters(), *model.named_buffers()]}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = torch.func.functional_call(model, state, (torch.empty(2, *shape, device="meta"),))
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"backbone {name!r} cannot take pictures of {picture} (C, H, W): {reason}; "
            "convert to larger clips, or choose another backbone such as resnet18"
        ) from error
    finally:
        model.train(was_training)
    if tuple(logits.shape) != (2, num_classes):
        raise ValueError(
            f"backbone {name!r} gives {tuple(logits.shape)} for 2 pictures of {picture}, expected (2, {num_classes})"
        )
