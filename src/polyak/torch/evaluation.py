"""Sees a model run with the wrong weights: with those that are only for training, or trained with those that are not."""

import weakref
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

# The optimizers whose weights are not for evaluation, as long as they live, and a hook of all modules that is there meanwhile.
_watched: set[weakref.ref[Any]] = set()
_hook: RemovableHandle | None = None


def watch(optimizer: Any) -> None:
    """Tell an optimizer before a module runs that has parameters of its own: it has the method `sees(module)`."""
    global _hook
    _watched.add(weakref.ref(optimizer, _forget))
    if _hook is None:
        _hook = register_module_forward_pre_hook(_look_at)


def _forget(optimizer: weakref.ref[Any]) -> None:
    global _hook
    _watched.discard(optimizer)
    if not _watched and _hook is not None:
        _hook.remove()
        _hook = None


def _look_at(module: torch.nn.Module, args: Any) -> None:  # noqa: ARG001  (torch gives the arguments of `forward`)
    if torch.compiler.is_compiling() or not module._parameters:
        return
    for reference in tuple(_watched):
        if (optimizer := reference()) is not None:
            optimizer.sees(module)
