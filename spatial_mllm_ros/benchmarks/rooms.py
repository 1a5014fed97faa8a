"""How fast rooms are rendered: frames per second on this machine's CPU, and on its GPU where there is one.

On a machine that does other work at the same time, use frames per CPU second: they count only the time in which this
process had a core.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch

from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.rooms.renderer.packing import pack_worlds
from spatial_mllm_ros.rooms.renderer.renderer import render
from spatial_mllm_ros.rooms.world.walk import make_walk
from spatial_mllm_ros.rooms.world.world import make_world, split_seed

_WORLDS = 16
_AIMS = {(112, 84): ">= 500", (448, 336): ">= 30"}
_CORES = 2  # the aims are for two


def rooms_rows(*, seconds: float = 4.0, worlds: int = _WORLDS) -> list[Row]:
    """Rows for `spatial_mllm benchmark`: rendering alone at two sizes, and whole clips (world, frames, annotation)."""
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    rows = []
    made = [make_world(split_seed("val", n)) for n in range(worlds)]
    walks = [make_walk(world) for world in made]
    for device in devices:
        packed = pack_worlds(made).to(device)
        for (width, height), aim in _AIMS.items():
            per_world = 16 if device == "cuda" else max(3, 151_000 // (width * height))
            at = (np.arange(per_world) + 0.5) / per_world
            poses = np.concatenate([walk.poses(at * walk.duration_s) for walk in walks])
            pose = torch.from_numpy(poses).to(device)
            world = torch.arange(worlds).repeat_interleave(per_world)
            k = torch.tensor([0.7 * width, 0.7 * width, width / 2 - 0.5, height / 2 - 0.5]).expand(len(world), 4)
            workers = min(_CORES, os.cpu_count() or 1) if device == "cpu" else 1
            rate, per_cpu_second = _rate(
                lambda p=packed, w=world, e=pose, kk=k, s=(width, height), n=workers: render(p, w, e, kk, s, workers=n),
                len(world),
                seconds,
            )
            detail = f"{device}, {workers} thread(s), {worlds} worlds, eager torch, perfect sensor"
            name = f"rooms: rendering {width}x{height} ({device})"
            rows.append(Row(name, rate, "frames/s", aim if device == "cpu" else "", detail))
            if device == "cpu":
                rows.append(
                    Row(f"{name}, per CPU second", per_cpu_second, "frames/s", "", f"{detail}; one core's share")
                )
    seeds = [split_seed("val", 100 + n) for n in range(max(1, worlds // 2))]
    config = ClipConfig(frames=16, workers=_CORES)
    rate, _ = _rate(lambda: make_clips(seeds, config), len(seeds) * config.frames, seconds)
    detail = f"cpu, worlds made anew, rendering on {_CORES} threads, visibility counted; 112x84, 16 frames per world"
    rows.append(Row("rooms: whole clips 112x84", rate, "frames/s", "", detail))
    return rows


def _rate(call: Any, frames: int, seconds: float) -> tuple[float, float]:
    """Frames per second, and per second of CPU time, over at least ``seconds`` after one call to warm up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads over frames scale better than threads within operations
    try:
        call()
        done, start, start_cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - start < seconds:
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            done += frames
        return done / (time.perf_counter() - start), done / (time.process_time() - start_cpu)
    finally:
        torch.set_num_threads(threads)
