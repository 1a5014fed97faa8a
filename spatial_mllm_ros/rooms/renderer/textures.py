"""Tone patterns of the rooms' surfaces: small periodic tiles, each with mip levels for distant surfaces."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from spatial_mllm_ros.rooms.world.parts import Texture

TILE_PX = 128  #: edge of a tile
LEVELS = 7  #: copies of every tile; level l is averaged over 2^l pixels


@lru_cache(maxsize=1)
def tone_tiles() -> np.ndarray:
    """All patterns: float32 [len(Texture), LEVELS, TILE_PX, TILE_PX], 0 (first colour) .. 1 (second colour)."""
    rng = np.random.default_rng(11)
    tiles = np.stack([_with_levels(np.clip(_pattern(kind, rng), 0, 1)) for kind in Texture])
    return tiles.astype(np.float32)


def _with_levels(tile: np.ndarray) -> np.ndarray:
    levels = [tile]
    for level in range(1, LEVELS):
        size = 2**level
        small = tile.reshape(TILE_PX // size, size, TILE_PX // size, size).mean((1, 3))
        levels.append(small.repeat(size, 0).repeat(size, 1))
    return np.stack(levels)


def _pattern(kind: Texture, rng: np.random.Generator) -> np.ndarray:
    v, u = np.mgrid[0:TILE_PX, 0:TILE_PX] * (64.0 / TILE_PX)  # the patterns are laid out in 64ths of a tile
    turn = 2 * np.pi / 64
    fine, coarse = _noise(rng, 32), _noise(rng, 8)
    patterns = {
        Texture.PLAIN: lambda: 0.10 + 0.05 * coarse,
        Texture.WOOD: lambda: 0.35 + 0.17 * np.sin(turn * 7 * u + 1.3 * _noise(rng, 4)) + 0.06 * fine,
        Texture.WEAVE: lambda: 0.35 + 0.2 * np.sin(turn * 16 * u) * np.sin(turn * 16 * v) + 0.1 * fine,
        Texture.STRIPES: lambda: ((u // 8) % 2) * 0.9 + 0.03 * fine,
        Texture.CHECKS: lambda: ((u // 16 + v // 16) % 2) * 0.9 + 0.03 * fine,
        Texture.DOTS: lambda: (((u % 16) - 8) ** 2 + ((v + 8 * (u // 16)) % 16 - 8) ** 2 < 20) * 0.9,
        Texture.PLANKS: lambda: 0.25 + 0.5 * rng.random(4)[(v // 16).astype(int)] + 0.1 * fine + 0.4 * (v % 16 < 1),
        Texture.TILES: lambda: np.where((u % 32 < 1.5) | (v % 32 < 1.5), 1.0, 0.12 + 0.04 * coarse),
        Texture.BRICKS: lambda: np.where(
            ((u + 16 * ((v // 16) % 2)) % 32 < 2) | (v % 16 < 2), 0.9, 0.15 + 0.1 * coarse
        ),
        Texture.SPECKLE: lambda: 0.3 + 0.22 * fine,
        Texture.LEAVES: lambda: 0.45 + 0.35 * _noise(rng, 16) * np.cos(turn * 8 * (u + v)) + 0.2 * coarse,
        Texture.WICKER: lambda: 0.5 + 0.4 * np.sin(turn * 8 * u) * np.where((v // 4) % 2, 1, -1),
        Texture.PANELS: lambda: np.where((u % 64 < 2) | (v % 64 < 2), 0.9, 0.12 + 0.03 * fine),
        Texture.CLOUDS: lambda: 0.4 + 0.25 * coarse + 0.1 * _noise(rng, 4),
    }
    return patterns[kind]()


def _noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Periodic noise of unit variance, ``cells`` features across the tile, float64 [TILE_PX, TILE_PX]."""
    coarse = np.pad(rng.standard_normal((cells, cells)), 1, mode="wrap")
    step = TILE_PX // cells
    fine = cv2.resize(coarse, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)[step:-step, step:-step]
    return fine / fine.std()
