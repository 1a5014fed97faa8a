"""Half precision for matrix products and float32 for the rest, with the casts in the graph.

TensorRT 11 has no precision flags and TensorRT 10 does not need them: the types of the graph count ("strongly typed").
Explicit casts can be exported, autocast regions cannot.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spatial_mllm_ros.engines.profile import Precision
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.vggt import VGGT
from spatial_mllm_ros.models.vggt.layers import Attention, Block, Mlp
from spatial_mllm_ros.models.vggt.rope import RopeTables, apply_rope

DTYPE_OF = {Precision.FP32: torch.float32, Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}


class MixedAttention(nn.Module):
    """``Attention`` with products in ``dtype``, normalisation and rotation in float32; float32 in and out."""

    def __init__(self, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads = attention.heads
        self.dtype = dtype
        self.qkv, self.proj = attention.qkv.to(dtype), attention.proj.to(dtype)
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm

    def forward(self, tokens: Tensor, rope: RopeTables | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D]; ``rope`` has N rows."""
        rows = self.qkv(tokens.to(self.dtype)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = rows.unbind(0)
        query, key = self.q_norm(query.float()), self.k_norm(key.float())
        if rope is not None:
            query, key = apply_rope(query, rope), apply_rope(key, rope)
        mixed = F.scaled_dot_product_attention(query.to(self.dtype), key.to(self.dtype), value)
        return self.proj(mixed.transpose(1, 2).flatten(2)).float()


class MixedMlp(nn.Module):
    """``Mlp`` in ``dtype``; float32 in and out."""

    def __init__(self, mlp: Mlp, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.fc1, self.fc2 = mlp.fc1.to(dtype), mlp.fc2.to(dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return self.fc2(F.gelu(self.fc1(tokens.to(self.dtype)))).float()


def to_precision(vggt: VGGT, precision: Precision) -> VGGT:
    """Turns ``vggt``, in place, into one whose matrix products run in ``precision``; returns it.

    The heads stay float32. The keys of the state do not change; a model can be converted once.

    Raises:
        ConfigurationError: it has been converted to half precision before.
    """
    blocks = [module for module in vggt.aggregator.modules() if isinstance(module, Block)]
    if any(not isinstance(block.attn, Attention) for block in blocks):
        raise ConfigurationError("This VGGT is in mixed precision already; load the checkpoint again.")
    vggt.cast_aggregator(torch.float32)
    dtype = DTYPE_OF[Precision(precision)]
    if dtype != torch.float32:
        for block in blocks:
            block.register_module("attn", MixedAttention(block.attn, dtype))
            block.register_module("mlp", MixedMlp(block.mlp, dtype))
    return vggt
