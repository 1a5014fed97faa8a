"""Many worlds side by side in tensors, so that one call renders frames of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.rooms.renderer.textures import tone_tiles
from spatial_mllm_ros.rooms.world.parts import ROW_CELL, ROW_LIGHT, ROW_TEXTURE
from spatial_mllm_ros.rooms.world.world import World

_FAR = 1e9


@dataclass(frozen=True, eq=False)
class PackedWorlds:
    """W worlds on one device; G is the largest number of cells, O the largest number of openings of a world.

    Attributes:
        table: float32 [COLUMNS, P], parts of all worlds; in ROW_CELL, cells are numbered over all worlds.
        shapes: int64 [P]. first_part, first_cell: int64 [W + 1].
        cells_m: float32 [W, G, 4] rectangles; those of missing cells are far away.
        portal_m: float32 [W, O, 4, 3] corners of passable openings.
        portal_cells: int64 [W, O, 2], cells within the world; [0, 0] for missing openings.
        portal_plane: float32 [W, O, 4]: axis, position, span.
        floor_m: float32 [C, 4] rectangles of the cells of all worlds; shadows: float32 [C * S * S].
        light: float32 [W, 2], ambient and sky. tones: float32, all texture tiles, flattened.
    """

    table: torch.Tensor
    shapes: torch.Tensor
    first_part: torch.Tensor
    first_cell: torch.Tensor
    cells_m: torch.Tensor
    portal_m: torch.Tensor
    portal_cells: torch.Tensor
    portal_plane: torch.Tensor
    floor_m: torch.Tensor
    shadows: torch.Tensor
    light: torch.Tensor
    tones: torch.Tensor

    def to(self, device: str | torch.device) -> PackedWorlds:
        """The worlds on another device."""
        return PackedWorlds(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def pack_worlds(worlds: Sequence[World]) -> PackedWorlds:
    """Puts worlds side by side, on the CPU.

    Raises:
        ConfigurationError: ``worlds`` is empty.
    """
    if not worlds:
        raise ConfigurationError("pack_worlds needs at least one world.")
    openings = [[o for o in world.plan.openings if o.kind != "window"] for world in worlds]
    most_cells = max(len(world.plan.cells) for world in worlds)
    most_openings = max(1, *(len(o) for o in openings))
    cells = np.full((len(worlds), most_cells, 4), _FAR, np.float32)
    portals = np.full((len(worlds), most_openings, 4, 3), _FAR, np.float32)
    portal_cells = np.zeros((len(worlds), most_openings, 2), np.int64)
    plane = np.full((len(worlds), most_openings, 4), _FAR, np.float32)
    tables, first_cell = [], np.cumsum([0] + [len(world.plan.cells) for world in worlds])
    for w, world in enumerate(worlds):
        cells[w, : len(world.plan.cells)] = world.plan.cells
        for o, opening in enumerate(openings[w]):
            (low, high), (bottom, top) = opening.span_m, opening.height_m
            corners = [(low, bottom), (high, bottom), (high, top), (low, top)]
            at = opening.position_m
            portals[w, o] = [(at, s, z) if opening.axis == 0 else (s, at, z) for s, z in corners]
            portal_cells[w, o] = opening.cells
            plane[w, o] = (opening.axis, at, low, high)
        cell = world.table[ROW_CELL].astype(np.int64)
        table = world.table.copy()
        table[ROW_LIGHT : ROW_LIGHT + 4] = np.concatenate([world.lights_m[cell].T, world.power[cell][None]])
        table[ROW_CELL] += first_cell[w]
        tables.append(table)
    tones = tone_tiles()
    joined = np.concatenate(tables, axis=1)
    joined[ROW_TEXTURE] *= tones[0].size
    return PackedWorlds(
        table=torch.from_numpy(joined),
        shapes=torch.from_numpy(np.concatenate([world.shapes for world in worlds])),
        first_part=torch.from_numpy(np.cumsum([0] + [len(world.shapes) for world in worlds])),
        first_cell=torch.from_numpy(first_cell),
        cells_m=torch.from_numpy(cells),
        portal_m=torch.from_numpy(portals),
        portal_cells=torch.from_numpy(portal_cells),
        portal_plane=torch.from_numpy(plane),
        floor_m=torch.from_numpy(np.concatenate([np.array(w.plan.cells, np.float32) for w in worlds])),
        shadows=torch.from_numpy(np.concatenate([w.shadows.reshape(-1) for w in worlds])),
        light=torch.tensor([[w.ambient, w.sky] for w in worlds], dtype=torch.float32),
        tones=torch.from_numpy(tones.reshape(-1)),
    )
