import numpy as np
import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.rooms.renderer.sensor import SensorModel, expose


def test_visibility_counts_the_pixels_of_each_object(clips):
    for clip in clips:
        seen = clip.annotation.visibility
        for f in range(len(clip.rgb)):
            ids, counts = np.unique(clip.instance[f].numpy(), return_counts=True)
            expected = dict(zip(ids.tolist(), counts.tolist(), strict=True))
            for n, thing in enumerate(clip.annotation.objects):
                assert seen.pixels[f, n] == expected.get(thing.id, 0)
        assert (seen.fraction > 0.3).any()
        assert seen.fraction.max() <= 1


def test_points_of_a_thing_lie_in_its_box(clips):
    for clip in clips:
        camera = clip.intrinsics
        boxes = {thing.id: thing.box for thing in clip.annotation.objects}
        for frame, ids in zip(clip.frames(), clip.instance.numpy(), strict=True):
            v, u = np.nonzero(ids > 0)
            depth = frame.depth_m[v, u]
            rays = np.stack([(u - camera.cx_px) / camera.fx_px, (v - camera.cy_px) / camera.fy_px, np.ones(len(u))], -1)
            points = (rays * depth[:, None]) @ frame.scene_from_cam[:3, :3].T + frame.scene_from_cam[:3, 3]
            for number in np.unique(ids[v, u]):
                assert boxes[number].contains(points[ids[v, u] == number], 2e-3).all()


def test_a_clip_is_the_same_at_every_call_and_in_any_company(clips):
    again = make_clips([8], ClipConfig(frames=8, width_px=96, height_px=72))[0]
    assert torch.equal(again.rgb, clips[1].rgb)
    assert torch.equal(again.instance, clips[1].instance)
    assert np.array_equal(again.scene_from_cam, clips[1].scene_from_cam)
    other = make_clips([8], ClipConfig(frames=8, width_px=96, height_px=72), walk=1)[0]
    assert not np.array_equal(other.scene_from_cam, again.scene_from_cam)


def test_stamps_grow_and_follow_the_rate():
    clip = make_clips([3], ClipConfig(frames=4, width_px=32, height_px=24, rate_hz=8.0))[0]
    assert clip.stamps_ns.tolist() == [1_000_000_000 + n * 125_000_000 for n in range(4)]
    assert [frame.stamp_ns for frame in clip.frames()] == clip.stamps_ns.tolist()


def test_motion_blur_smears_what_moves_and_leaves_truth_alone():
    sharp = make_clips([8], ClipConfig(frames=4, width_px=96, height_px=72))[0]
    sensor = SensorModel(blur_samples=5, shutter_s=0.1)
    blurred = make_clips([8], ClipConfig(frames=4, width_px=96, height_px=72, sensor=sensor))[0]
    assert torch.equal(sharp.instance, blurred.instance)

    def edges(rgb):
        return rgb.float().diff(dim=2).abs().mean()

    assert edges(blurred.rgb) < 0.85 * edges(sharp.rgb)


def test_noise_and_exposure_are_as_strong_as_told():
    grey = torch.full((40, 30, 50, 3), 0.5)
    generator = torch.Generator().manual_seed(1)
    noisy = expose(grey, SensorModel(noise=0.02), generator).float() / 255
    assert noisy.std() == pytest.approx(0.02, rel=0.1)
    bright = expose(grey, SensorModel(exposure_stops=0.5), generator).float().mean((1, 2, 3)) / 255
    assert 0.1 < torch.log2(bright / 0.5).std() < 0.8
    tinted = expose(grey, SensorModel(white_balance=0.2), generator)[0, 0, 0]
    assert tinted[1] == 128
    assert tinted[0] != 128
    assert torch.equal(expose(grey, SensorModel(), generator), torch.full_like(grey, 128, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"frames": 0}, "frames"),
        ({"width_px": -3}, "width_px"),
        ({"rate_hz": -1.0}, "rate_hz"),
        ({"focal": (0.9, 0.5)}, "focal"),
    ],
)
def test_impossible_clips_are_refused(options, match):
    with pytest.raises(ConfigurationError, match=match):
        ClipConfig(**options)
    with pytest.raises(ConfigurationError, match="noise"):
        SensorModel(noise=-1.0)


def test_a_thing_in_full_view_is_seen_as_a_whole():
    best = {}
    for clip in make_clips(range(200, 212), ClipConfig(frames=24, width_px=112, height_px=84)):
        for thing, share in zip(clip.annotation.objects, clip.annotation.visibility.fraction.max(0), strict=True):
            best.setdefault(thing.label, []).append(float(share))
    # Of most classes some are seen whole, whether they fill their box or not.
    assert np.mean([max(values) > 0.7 for values in best.values()]) > 0.75
