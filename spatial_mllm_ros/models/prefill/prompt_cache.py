"""Keys and values of a prompt's beginning, kept so that any number of questions can follow it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class _LayerWithRoom(DynamicLayer):
    """Keys and values of one layer in a buffer with room behind them, so that a token is written and nothing copied.

    The library's layer concatenates: it copies the whole prompt for every token.
    """

    def __init__(self, capacity: int, room: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._room = room
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends [1, heads, n, head_dim]; returns all that is held, as views."""
        held = self.get_seq_length()
        length = held + key_states.shape[-2]
        if self._buffers is None or length > self._buffers[0].shape[-2]:
            self._grow(length, key_states, value_states)
        self._buffers[0][..., held:length, :] = key_states  # type: ignore[index]
        self._buffers[1][..., held:length, :] = value_states  # type: ignore[index]
        self._show(length)
        return self.keys, self.values

    def truncate(self, length: int) -> None:
        """Holds the first ``length`` tokens only; what was written behind them is forgotten."""
        if self._buffers is not None:
            self._show(length)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, room included."""
        return sum(buffer.nbytes for buffer in self._buffers or ())

    def _show(self, length: int) -> None:
        keys, values = self._buffers  # type: ignore[misc]
        self.keys, self.values = keys[..., :length, :], values[..., :length, :]

    def _grow(self, length: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        held = self.get_seq_length()
        self._capacity = max(self._capacity, length + self._room)

        def grown(states: torch.Tensor, old: torch.Tensor | None) -> torch.Tensor:
            buffer = states.new_empty(*states.shape[:-2], self._capacity, states.shape[-1])
            if old is not None:
                buffer[..., :held, :] = old[..., :held, :]
            return buffer

        old = self._buffers or (None, None)
        self._buffers = (grown(keys, old[0]), grown(values, old[1]))
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True


class PromptCache(Cache):
    """The keys and values of one prompt's beginning in all layers, with room for a question and its answer.

    Once ``seal``-ed, the beginning is never written again, so nothing that happens to a question can tear it: what a
    question appends lies behind it and is forgotten when the question ends, however it ends.

    Args:
        layers: of the language model.
        tokens: of the beginning.
        room: tokens behind it; more are possible, at the price of one copy.
    """

    def __init__(self, *, layers: int, tokens: int, room: int) -> None:
        super().__init__(layers=[_LayerWithRoom(tokens + room, room) for _ in range(layers)])
        self._sealed = 0
        self._asking = threading.Lock()

    def truncate(self, tokens: int) -> None:
        """Holds the first ``tokens`` in every layer, also where a pass was left in the middle of the layers."""
        for layer in self.layers:
            layer.truncate(tokens)

    def seal(self) -> None:
        """What is held now is the beginning."""
        self._sealed = self.get_seq_length()

    @contextmanager
    def question(self) -> Iterator[PromptCache]:
        """The cache with the beginning alone, for one question at a time; so it is again afterwards."""
        with self._asking:
            self.truncate(self._sealed)
            try:
                yield self
            finally:
                self.truncate(self._sealed)

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, room included."""
        return sum(layer.nbytes for layer in self.layers)


@dataclass(frozen=True, eq=False)
class PromptPrefix:
    """The beginning of a prompt, system text and frames, as the language model has read it.

    Attributes:
        token_ids: system text, placeholders of the frames, and what stands around them.
        visual_tokens: how many of them are visual.
        next_position: mRoPE position, on all three axes, of the first token of a question.
        cache: its keys and values.
    """

    token_ids: tuple[int, ...]
    visual_tokens: int
    next_position: int
    cache: PromptCache
