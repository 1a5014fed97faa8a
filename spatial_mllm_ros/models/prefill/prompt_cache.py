"""The language model's cache of a prompt's beginning, which any number of questions can continue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class _LayerWithRoom(DynamicLayer):
    """Keys and values of one layer in a buffer with room behind them, into which a further token is written.

    The library's layer concatenates instead: it copies the whole prompt for every token.
    """

    def __init__(self, capacity: int, room: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._room = room
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends [rows, heads, n, head_dim]; returns all keys and values, as views."""
        held = self.get_seq_length()
        length = held + key_states.shape[-2]
        if self._buffers is None or length > self._buffers[0].shape[-2]:
            self._grow(length, key_states, value_states)
        self._buffers[0][..., held:length, :] = key_states  # type: ignore[index]
        self._buffers[1][..., held:length, :] = value_states  # type: ignore[index]
        self._show(length)
        return self.keys, self.values

    def truncate(self, length: int) -> None:
        """Removes all tokens behind the first ``length``."""
        if self._buffers is not None:
            self._show(length)

    def repeated(self, rows: int, room: int) -> _LayerWithRoom:
        """A layer of its own whose ``rows`` rows all hold this layer's tokens, with ``room`` behind them."""
        layer = _LayerWithRoom(self.get_seq_length() + room, room)
        layer.update(self.keys.expand(rows, -1, -1, -1), self.values.expand(rows, -1, -1, -1))
        return layer

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

    After ``seal`` the beginning is never written again: a question is appended behind it, and removed when the question
    ends, however it ends. Not thread-safe: one question is asked at a time.

    Args:
        layers: of the language model.
        tokens: of the beginning.
        room: tokens behind it; more are possible, at the price of one copy.
    """

    def __init__(self, *, layers: int, tokens: int, room: int) -> None:
        super().__init__(layers=[_LayerWithRoom(tokens + room, room) for _ in range(layers)])
        self._sealed = 0

    def truncate(self, tokens: int) -> None:
        """Removes all tokens behind the first ``tokens``, also where a pass ended in the middle of the layers."""
        for layer in self.layers:
            layer.truncate(tokens)

    def seal(self) -> None:
        """Declares the present tokens to be the beginning."""
        self._sealed = self.get_seq_length()

    @contextmanager
    def questions(self, rows: int, *, room: int) -> Iterator[Cache]:
        """A cache with the beginning in each of ``rows`` rows, for as many questions together.

        One row is this cache itself, and nothing is copied. More rows are a copy that is released afterwards.

        Args:
            room: tokens that the questions and answers take in a copy.
        """
        self.truncate(self._sealed)
        if rows > 1:
            yield Cache(layers=[layer.repeated(rows, room) for layer in self.layers])
            return
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
        token_ids: system text, placeholders of the frames, and the tokens around them.
        grid_thw: frame pairs, rows and columns of patches of the video.
        next_position: mRoPE position, on all three axes, of the first token of a question.
        cache: keys and values of these tokens.
    """

    token_ids: tuple[int, ...]
    grid_thw: tuple[int, int, int]
    next_position: int
    cache: PromptCache
