"""An LRU cache for the tokens of frames and frame pairs, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import torch

from spatial_mllm_ros.errors import ConfigurationError


class TokenCache:
    """Tensors by key; when they take more than ``max_bytes``, the least recently used ones are removed.

    Args:
        max_bytes: 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ConfigurationError(f"The bound of the token cache is {max_bytes} bytes; it must be 0 or above.")
        self._max_bytes = max_bytes
        self._held: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self.nbytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: Hashable) -> torch.Tensor | None:
        """The tensor of ``key``, or None; counts a hit or a miss."""
        tensor = self._held.get(key)
        if tensor is None:
            self.misses += 1
            return None
        self._held.move_to_end(key)
        self.hits += 1
        return tensor

    def put(self, key: Hashable, tensor: torch.Tensor) -> None:
        """Keeps ``tensor``, unless it alone is larger than the bound."""
        old = self._held.pop(key, None)
        self.nbytes -= 0 if old is None else old.nbytes
        if tensor.nbytes > self._max_bytes:
            return
        self._held[key] = tensor
        self.nbytes += tensor.nbytes
        while self.nbytes > self._max_bytes:
            self.nbytes -= self._held.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Removes all tensors."""
        self._held.clear()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._held)
