"""The transformer block that every part of VGGT is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spatial_mllm_ros.models.vggt.rope import RopeTables, apply_rope


class Attention(nn.Module):
    """Multi-head self-attention, with optional normalisation and rotation of queries and keys."""

    def __init__(self, dim: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        if qk_norm:
            self.q_norm: nn.Module = nn.LayerNorm(dim // heads, eps=1e-5)
            self.k_norm: nn.Module = nn.LayerNorm(dim // heads, eps=1e-5)
        else:
            self.q_norm, self.k_norm = nn.Identity(), nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, rope: RopeTables | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D]; ``rope`` has N rows."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        query, key = self.q_norm(query), self.k_norm(key)
        if rope is not None:
            query, key = apply_rope(query, rope), apply_rope(key, rope)
        mixed = F.scaled_dot_product_attention(query, key, value)  # [B, heads, N, head_dim]
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, out_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., dim] -> [..., out_dim]."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        return tokens * self.gamma


class Block(nn.Module):
    """Attention and MLP, each normalised first, scaled, and added to its input."""

    def __init__(
        self, dim: int, heads: int, *, mlp_ratio: int, norm_eps: float, qk_norm: bool = False, layer_scale: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads, qk_norm=qk_norm)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, mlp_ratio * dim, dim)
        self.ls2 = LayerScale(dim, layer_scale)

    def forward(self, tokens: Tensor, rope: RopeTables | None = None) -> Tensor:
        """[B, N, dim] -> [B, N, dim]."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), rope))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))
