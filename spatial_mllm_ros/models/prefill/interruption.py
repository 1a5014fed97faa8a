"""Interrupts a pass of the model between two of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Interrupted(Exception):  # noqa: N818 (not an error: the caller requested it, and the work continues later)
    """The pass ended before its next layer. The rooms above the models never see it."""


@contextmanager
def interruptible(blocks: Iterable[nn.Module], interrupt: Callable[[], bool]) -> Iterator[None]:
    """Inside this context each of ``blocks`` calls ``interrupt`` before it runs, and raises ``Interrupted`` if True.

    On a GPU, the check first waits for the layers before: without this, the queue of launched kernels would run far
    ahead, and the device would be free only much later. The wait costs some microseconds per layer.

    Args:
        blocks: transformer layers, in eager mode: a compiled or exported model does not call them.
        interrupt: cheap; called in the thread of the pass.
    """

    def check(module: nn.Module, _inputs: Any) -> None:
        if next(module.parameters()).is_cuda:
            torch.cuda.current_stream().synchronize()
        if interrupt():
            raise Interrupted

    handles = [block.register_forward_pre_hook(check) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
