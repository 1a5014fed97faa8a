"""Frame sampling against ``sampling/``: identical where the official algorithm is sound, K frames where it breaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spatial_mllm_ros.verification.checks import Check, compare

_SEQUENCE = "redkitchen"


def checks(root: Path) -> Iterator[Check]:
    """Cases, pure set cases, and the real sequence in ``../data`` beside ``root``; nothing for what is absent."""
    expected_path = root / "sampling" / "expected.json"
    if expected_path.is_file():
        expected = json.loads(expected_path.read_text())
        for case in expected["cases"]:
            path = root / "sampling" / f"case_{case['case']}.npz"
            if path.is_file():
                with np.load(path) as arrays:
                    yield from _clip_checks(case, arrays["world_points"], arrays["world_points_conf"])
        for case in expected.get("pure_set_cases", []):
            yield from _set_checks(case)
    real_path, folder = root / "sampling" / f"real_{_SEQUENCE}.json", root.resolve().parent / "data" / _SEQUENCE
    if real_path.is_file() and folder.is_dir():
        yield from _sequence_checks(json.loads(real_path.read_text()), folder)


def _clip_checks(case: dict[str, Any], points: np.ndarray, confidence: np.ndarray) -> Iterator[Check]:
    from spatial_mllm_ros.scene.offline.selection import select_offline

    name, k = f"sampling/{case['case']}", int(case["K"])
    ours = select_offline(points, confidence, k)
    wanted = min(k, len(points))
    if len(case.get("selected_sorted", ())) < wanted:
        # the official result has too few frames, or none at all: ours must have K, and they must be different ones
        yield compare(name, "frames selected", len(set(ours.indices)), wanted, tolerance=0)
        return
    yield compare(name, "frames", ours.indices, case["selected_sorted"], tolerance=0)
    yield compare(name, "greedy order", ours.greedy_order, case["greedy_order"], tolerance=0)
    yield compare(name, "gains", ours.gains, case["gains"], tolerance=0)
    yield compare(name, "voxels per frame", ours.voxels_per_frame, case["per_frame_voxels"], tolerance=0)
    yield compare(name, "covered voxels", ours.covered_voxels, case["covered"], tolerance=0)
    yield compare(name, "total voxels", ours.total_voxels, case["total_voxels"], tolerance=0)
    yield compare(name, "confidence threshold", ours.confidence_threshold, case["conf_threshold"], tolerance=0)
    yield compare(name, "voxel size", ours.voxel_size, case["voxel_size"], tolerance=0)
    yield compare(
        name, "bounding box", [ours.bbox_min, ours.bbox_max], [case["bbox_min"], case["bbox_max"]], tolerance=0
    )


def _set_checks(case: dict[str, Any]) -> Iterator[Check]:
    from spatial_mllm_ros.scene.greedy import dense_ids, lazy_greedy
    from spatial_mllm_ros.scene.voxels import pack_cells

    keys = [np.unique(pack_cells(np.array(cells, np.int64).reshape(-1, 3))) for cells in case["sets"]]
    voxels, voxel_count = dense_ids(keys)
    order, _ = lazy_greedy(voxels, voxel_count, int(case["K"]))
    reference = np.array(case["greedy_order"], np.int64)
    yield compare(f"sampling/{case['name']}", "greedy order", np.array(order, np.int64), reference, tolerance=0)


def _sequence_checks(expected: dict[str, Any], folder: Path) -> Iterator[Check]:
    from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
    from spatial_mllm_ros.recordings.recording import FIRST_STAMP_NS
    from spatial_mllm_ros.recordings.rgbd_folder import DEFAULT_NUMBER_RATE_HZ, RgbdFolder
    from spatial_mllm_ros.scene.offline.selection import select_offline

    encoder = SensorDepthEncoder(pixel_stride=expected["pixel_stride"], max_depth_m=expected["depth_max_m"])
    wanted = set(expected["frames"])
    with RgbdFolder(folder) as recording:
        geometries = [
            encoder.encode([frame])[0]
            for frame in recording
            if round((frame.stamp_ns - FIRST_STAMP_NS) * DEFAULT_NUMBER_RATE_HZ / 1e9) in wanted
        ]
    name = f"sampling/real_{_SEQUENCE}"
    yield compare(name, "frames read", len(geometries), len(wanted), tolerance=0)
    points = np.stack([g.points_scene for g in geometries])
    confidence = np.stack([g.confidence for g in geometries])
    for k, reference in expected["K"].items():
        ours = select_offline(points, confidence, int(k))
        yield compare(name, f"greedy order, K = {k}", ours.greedy_order, reference["greedy_order"], tolerance=0)
        yield compare(name, f"covered voxels, K = {k}", ours.covered_voxels, reference["covered"], tolerance=0)
    yield compare(name, "total voxels", ours.total_voxels, next(iter(expected["K"].values()))["total"], tolerance=0)
    yield compare(name, "voxels per frame", ours.voxels_per_frame, expected["voxels_per_frame"], tolerance=0)
    yield compare(name, "voxel size", ours.voxel_size, expected["voxel_size_m"], tolerance=0)
    # the reference computed its points in another order of float32 operations: one unit in the last place
    yield compare(
        name,
        "bounding box",
        [ours.bbox_min, ours.bbox_max],
        [expected["bbox_min"], expected["bbox_max"]],
        tolerance=5e-7,
    )
