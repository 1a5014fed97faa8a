from dataclasses import replace

import numpy as np
import pytest
import torch

from spatial_mllm_ros.benchmarks import encoder as benchmark_encoder
from spatial_mllm_ros.benchmarks.encoder import SIZES, encoder_rows, measure
from spatial_mllm_ros.benchmarks.process_memory import peak_bytes
from spatial_mllm_ros.errors import ConfigurationError

SMALL = replace(
    SIZES["tiny"],
    config=replace(SIZES["tiny"].config, depth=2, dino_depth=1, dpt_layers=(0, 0, 1, 1)),
    width_px=84,
    height_px=56,
    frames=3,
    calls=2,
    clip_frames=5,
    selected=2,
    exported=False,
)


def by_name(rows):
    return {row.name: row for row in rows}


def test_the_plain_way_gives_the_same_and_is_compared_with_the_best():
    rows = by_name(measure("small", SMALL))
    assert rows["encoder.small.plain.feature_cosine"].value == pytest.approx(1.0)
    for figure in ("depth_error", "position_error", "rotation_error"):
        assert rows[f"encoder.small.plain.{figure}"].value == pytest.approx(0.0, abs=1e-2)
    assert rows["encoder.small.plain.same_frames_selected"].value == 100
    speed = {name.split(".")[2]: row.value for name, row in rows.items() if name.endswith(".frames_per_s")}
    plain = speed.pop("plain")
    ratio = rows["encoder.small.best_over_plain"]
    assert ratio.value == pytest.approx(max(speed.values()) / plain)
    assert "random weights" in ratio.detail
    for name in ("torch", "plain"):
        percentiles = [rows[f"encoder.small.{name}.call_p{n}_ms"].value for n in (50, 99)]
        assert 0 < percentiles[0] <= percentiles[1]
        assert rows[f"encoder.small.{name}.memory_mib"].value > 0


def test_a_backend_that_is_off_is_seen_in_every_column():
    class Off(benchmark_encoder.PlainVggt):
        def __call__(self, images, outputs):
            prediction = super().__call__(images, outputs)
            pose = prediction.pose_encoding.clone()
            pose[:, 1, 0] += 0.5
            pose[:, 2, 3:7] = torch.tensor([0.0, 0.0, 2**-0.5, 2**-0.5])
            noise = torch.randn(prediction.last_layer.shape, generator=torch.Generator().manual_seed(0))
            return replace(
                prediction, pose_encoding=pose, depth=1.1 * prediction.depth, last_layer=prediction.last_layer + noise
            )

    vggt = benchmark_encoder.random_vggt(SMALL.config)
    images = torch.rand(1, 3, 3, 56, 84, generator=torch.Generator().manual_seed(0))
    size = replace(SMALL, clip_frames=0)
    rows = by_name(benchmark_encoder._parity_rows("s", Off(vggt), benchmark_encoder.PlainVggt(vggt), images, size))
    assert rows["encoder.s.plain.depth_error"].value == pytest.approx(10, abs=0.1)
    assert rows["encoder.s.plain.rotation_error"].value > 20
    assert rows["encoder.s.plain.position_error"].value > 5
    assert 0.1 < rows["encoder.s.plain.feature_cosine"].value < 0.999


def test_an_unknown_size_is_refused():
    with pytest.raises(ConfigurationError, match="Unknown encoder sizes huge; there are tiny, mid, full"):
        encoder_rows(["tiny", "huge"])


def test_the_peak_of_memory_counts_what_was_let_go_again():
    def work():
        return float(np.ones(40_000_000, np.uint8).sum())

    result, peak = peak_bytes(work)
    assert result == 40_000_000
    assert torch.cuda.is_available() or 35e6 < peak < 120e6


def test_the_peak_of_memory_counts_what_fits_into_memory_freed_earlier():
    for _ in range(2):  # the second time glibc has learnt to serve such blocks from its heap, and keeps them
        blocks = [np.ones(30_000_000, np.uint8) for _ in range(2)]
        del blocks
    _, peak = peak_bytes(lambda: float(np.ones(40_000_000, np.uint8).sum()))
    assert torch.cuda.is_available() or 35e6 < peak < 120e6
