"""A forward of ours in the place of a module's own: put in, taken out, and carried along to replicas."""

from __future__ import annotations

import copy
import types
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spade_core.drop_in.maps import Maps

_REPLICATE = "_replicate_for_data_parallel"  # what nn.DataParallel calls for a copy of a module on another device


class ForwardInPlace(ABC):
    """Called in place of the `forward` of a module.

    Attributes:
        module: the module. `original`: its own forward.
        maps: the segmaps seen by all layers of the network.
    """

    def __init__(self, module: nn.Module, maps: Maps) -> None:
        self.module, self.maps = module, maps
        self.original: Callable[..., Tensor] = module.forward
        self._shadowed = module.__dict__.get("forward")

    @abstractmethod
    def __call__(self, *args: Any, **named: Any) -> Tensor:
        """What the module's own forward gives."""

    def put_in(self) -> None:
        """Take the place of the module's forward."""
        self.module.__dict__["forward"] = self
        self.module.__dict__[_REPLICATE] = self.replicate

    def take_out(self) -> None:
        """Undo `put_in`; a forward that another library had set on the module itself is set again."""
        for name in ("forward", _REPLICATE):
            self.module.__dict__.pop(name, None)
        if self._shadowed is not None:
            self.module.__dict__["forward"] = self._shadowed

    def replicate(self) -> nn.Module:
        """A replica of the module as nn.DataParallel wants one. Its forward reads the replica's own parameters."""
        make: Any = type(self.module)._replicate_for_data_parallel
        replica: nn.Module = make(self.module)
        forward = copy.copy(self)
        forward.module = replica
        if isinstance(self.original, types.MethodType) and self.original.__self__ is self.module:
            forward.original = types.MethodType(self.original.__func__, replica)
        forward.put_in()
        return replica


def bare(module: nn.Module) -> nn.Module:
    """Take every forward of ours out of a copied module's own dictionary. Returns the module."""
    for name in ("forward", _REPLICATE):
        module.__dict__.pop(name, None)
    return module


def watched() -> bool:
    """Whether somebody records or transforms the call (tracing, export, torch.func), which cannot look at values."""
    traced = torch._C._get_tracing_state() is not None
    return traced or torch.compiler.is_exporting() or torch._C._are_functorch_transforms_active()


def has_hooks(module: nn.Module, norm: str) -> bool:
    """Whether a part of a module, except its norm, has hooks, which a call of ours would not run."""
    known = module, module.get_submodule(norm)
    return any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in module.modules()
        if part not in known
    )
