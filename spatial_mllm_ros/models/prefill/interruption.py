"""Leaving a long pass between two of its layers, because something more urgent waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Preempted(Exception):  # noqa: N818 (no error: somebody asked for it, and the work goes on later)
    """The pass was left before its next layer. Never leaves the room of the models."""


@contextmanager
def interruptible(blocks: Iterable[nn.Module], asked: Callable[[], bool]) -> Iterator[None]:
    """Within it, each of ``blocks`` asks before it runs whether to stop, and raises ``Preempted`` if so.

    On a GPU the layers before are waited for first: otherwise the queue of launched work would run far ahead of the
    question, and stopping to launch would free the device only much later. That costs some microseconds per layer.

    Args:
        blocks: transformer layers, in eager mode: a compiled or exported model does not call them.
        asked: cheap; called in the thread of the pass.
    """

    def check(module: nn.Module, _inputs: Any) -> None:
        if next(module.parameters()).is_cuda:
            torch.cuda.current_stream().synchronize()
        if asked():
            raise Preempted

    handles = [block.register_forward_pre_hook(check) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
