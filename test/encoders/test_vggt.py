"""The encoder in a synthetic room, with a made-up predictor that is exact but, like VGGT, for frame and scale."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spatial_mllm_ros.encoders.base import Anchor, FrameGeometry, ScaleSource
from spatial_mllm_ros.encoders.vggt import VggtGeometryEncoder, network_size
from spatial_mllm_ros.errors import ConfigurationError, EncoderError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.geometry.poses import inverse_pose, matrix_from_quaternion, quaternion_from_matrix
from spatial_mllm_ros.geometry.sim3 import Sim3
from spatial_mllm_ros.geometry.unprojection import to_scene, unproject_depth
from spatial_mllm_ros.models.vggt import VGGT, VggtConfig, VggtOutput, VggtPrediction

WIDTH, HEIGHT, FOV_Y, FOV_X = 98, 70, 0.9, 1.15
ROOM_MIN, ROOM_MAX = np.array([-2.1, -1.3, -1.7]), np.array([3.2, 1.1, 4.6])
IDENTITY = Sim3(1.0, np.eye(3), np.zeros(3))
ROOM_TURN = matrix_from_quaternion([0.1, 0.4, -0.2, 0.9])  # walls are not along the scene's axes


def camera(width: int = WIDTH, height: int = HEIGHT) -> Intrinsics:
    focal = (width / 2 / np.tan(FOV_X / 2), height / 2 / np.tan(FOV_Y / 2))
    return Intrinsics(*focal, width / 2, height / 2, width, height)


def pose_of(index: int, step_m: float = 0.15) -> np.ndarray:
    """A camera that walks and turns, world axes tilted."""
    pose = np.eye(4)
    angle = 0.12 * index
    pose[:3, :3] = ROOM_TURN @ matrix_from_quaternion([0.05, np.sin(angle), 0.02 * index, np.cos(angle)])
    pose[:3, 3] = ROOM_TURN @ (np.array([0.2, -0.1, 0.3]) + step_m * index * np.array([1.0, 0.1, -0.4]))
    return pose


def true_depth(pose: np.ndarray, intrinsics: Intrinsics | None = None) -> np.ndarray:
    """float32 [h, w]: where the pixel's rays meet the walls, metres along z."""
    intrinsics = intrinsics or camera()
    rays = unproject_depth(np.ones((intrinsics.height_px, intrinsics.width_px), np.float32), intrinsics)
    directions, start = rays @ (ROOM_TURN.T @ pose[:3, :3]).T, ROOM_TURN.T @ pose[:3, 3]
    return np.maximum((ROOM_MIN - start) / directions, (ROOM_MAX - start) / directions).min(axis=-1).astype(np.float32)


def true_points(pose: np.ndarray) -> np.ndarray:
    return to_scene(unproject_depth(true_depth(pose), camera()), pose)


def frame(
    index: int, *, pose: np.ndarray | None = None, depth: bool = False, shape: tuple[int, int] = (HEIGHT, WIDTH)
) -> Frame:
    """A frame whose colour is its number, which is all that the made-up predictor looks at."""
    rgb = np.full((*shape, 3), index, np.uint8)
    return Frame(
        stamp_ns=1_000 + index,
        rgb=rgb,
        depth_m=true_depth(pose_of(index), camera(*(np.array((49, 35))))) if depth else None,
        scene_from_cam=pose,
    )


class ExactPredictor:
    """Knows the room, and tells it in a frame and a scale that differ from call to call."""

    def __init__(self, step_m: float = 0.15, *, scale: float | None = None) -> None:
        self.step_m = step_m
        self.scale = scale  # None: another one in every call
        self.calls: list[tuple[int, ...]] = []
        self.image_shapes: list[tuple[int, ...]] = []
        self.windows: list[Sim3] = []
        self.spoil = lambda prediction: prediction

    def __call__(self, images: torch.Tensor, outputs: Collection[VggtOutput]) -> VggtPrediction:
        indices = tuple(int(value) for value in (images[0, :, 0, 0, 0] * 255).round())
        self.calls.append(indices)
        self.image_shapes.append(tuple(images.shape))
        random = np.random.default_rng(len(self.calls))
        window_from_scene = Sim3(
            self.scale or random.uniform(0.2, 0.6), matrix_from_quaternion(random.normal(size=4)), random.normal(size=3)
        )
        self.windows.append(window_from_scene)
        truth = [pose_of(index, self.step_m) for index in indices]
        cam_from_window = inverse_pose(window_from_scene.apply_to_pose(np.array(truth)))
        quaternion = -2.5 * quaternion_from_matrix(cam_from_window[:, :3, :3])  # any length and sign
        fov = np.tile([FOV_Y, FOV_X], (len(truth), 1))
        depth = np.array([true_depth(pose) for pose in truth])
        points = np.array([to_scene(unproject_depth(d, camera()), p) for d, p in zip(depth, truth, strict=True)])
        tensors = {
            "pose_encoding": np.concatenate((cam_from_window[:, :3, 3], quaternion, fov), axis=1),
            "depth": depth * window_from_scene.scale,
            "depth_confidence": 1 + 1 / depth,
            "points_world": window_from_scene.apply(points),
            "points_confidence": 1 + 1 / depth,
        }
        wanted = {VggtOutput.POSE: ("pose_encoding",), VggtOutput.DEPTH: ("depth", "depth_confidence")}
        wanted[VggtOutput.POINTS] = ("points_world", "points_confidence")
        names = {name for output in outputs for name in wanted[output]}
        return VggtPrediction(**{name: self.spoil_one(name, tensors[name]) for name in names})

    def spoil_one(self, name: str, values: np.ndarray) -> torch.Tensor:
        return torch.tensor(self.spoil({name: values})[name], dtype=torch.float32)[None]


def encoder_of(predictor: ExactPredictor, **options: object) -> VggtGeometryEncoder:
    return VggtGeometryEncoder(predictor, device="cpu", image_width_px=WIDTH, **options)


def assert_truth(
    geometry: FrameGeometry, index: int, scene_from_truth: Sim3, *, step_m: float = 0.15, tolerance: float = 2e-4
) -> None:
    pose = pose_of(index, step_m)
    np.testing.assert_allclose(geometry.points_scene, scene_from_truth.apply(true_points(pose)), atol=tolerance * 5)
    np.testing.assert_allclose(geometry.scene_from_cam, scene_from_truth.apply_to_pose(pose), atol=tolerance * 5)
    assert geometry.points_scene.dtype == geometry.confidence.dtype == np.float32
    assert (geometry.confidence > 1).all()
    assert (geometry.intrinsics.width_px, geometry.intrinsics.height_px) == (WIDTH, HEIGHT)


def first_camera_of_truth(index: int, scale: float = 1.0, step_m: float = 0.15) -> Sim3:
    cam_from_truth = inverse_pose(pose_of(index, step_m))
    return Sim3(scale, cam_from_truth[:3, :3], scale * cam_from_truth[:3, 3])


def anchors_of(frames: Sequence[Frame], geometries: Sequence[FrameGeometry]) -> list[Anchor]:
    return [Anchor(f, g) for f, g in zip(frames, geometries, strict=True)]


@pytest.mark.parametrize("points", ["depth", "points"])
def test_windows_without_any_measure_share_the_first_cameras_frame_and_scale(points: str) -> None:
    predictor = ExactPredictor()
    encoder = encoder_of(predictor, window_size=3, points=points)
    first, second = [frame(i) for i in (0, 1, 2)], [frame(i) for i in (3, 4)]
    known = encoder.encode(first, [])
    scene_from_truth = first_camera_of_truth(0, predictor.windows[0].scale)
    for index, geometry in enumerate(known):
        assert_truth(geometry, index, scene_from_truth)
        assert geometry.scale_source is ScaleSource.MODEL
    np.testing.assert_allclose(known[0].scene_from_cam, np.eye(4), atol=1e-6)

    new = encoder.encode(second, anchors_of(first[:2], known[:2]))
    assert predictor.calls[1] == (0, 1, 3, 4)  # anchors first, in one pass with the new frames
    assert len(new) == 2
    for index, geometry in zip((3, 4), new, strict=True):
        assert_truth(geometry, index, scene_from_truth)
        assert geometry.scale_source is ScaleSource.MODEL


def test_one_anchor_is_enough_also_when_a_part_of_it_changed() -> None:
    predictor = ExactPredictor()
    encoder = encoder_of(predictor, window_size=2)
    known = encoder.encode([frame(0)], [])

    def nearer_on_the_left(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k: v * np.where(np.arange(WIDTH) < 30, 0.4, 1) if k == "depth" else v for k, v in tensors.items()}

    predictor.spoil = nearer_on_the_left
    new = encoder.encode([frame(1)], anchors_of([frame(0)], known))
    expected = first_camera_of_truth(0, predictor.windows[0].scale)
    np.testing.assert_allclose(new[0].scene_from_cam, expected.apply_to_pose(pose_of(1)), atol=2e-3)
    ours, truth = new[0].points_scene[:, 30:], expected.apply(true_points(pose_of(1)))[:, 30:]
    assert np.linalg.norm(ours - truth, axis=-1).max() < 5e-3


def test_more_anchors_than_can_be_used_are_left_out() -> None:
    predictor = ExactPredictor()
    encoder = encoder_of(predictor, window_size=4, anchor_count=1)
    frames = [frame(i) for i in range(3)]
    known = encoder.encode(frames, [])
    encoder.encode([frame(3)], anchors_of(frames, known))
    assert predictor.calls[1] == (0, 3)


def test_an_anchor_map_of_another_resolution_with_holes_serves_as_well() -> None:
    predictor = ExactPredictor()
    encoder = encoder_of(predictor, window_size=2)
    # Pixel centres of the half-size map lie between those of the full one, so pairs are half a pixel of 98 apart.
    small = camera(WIDTH // 2, HEIGHT // 2)
    points = to_scene(unproject_depth(true_depth(pose_of(0), small), small), pose_of(0))
    confidence = np.ones(points.shape[:2], np.float32)
    points[5:9], confidence[5:9] = np.nan, 0
    anchor = Anchor(frame(0), FrameGeometry(points, confidence, pose_of(0), small, ScaleSource.DEPTH))
    (new,) = encoder.encode([frame(2)], [anchor])
    assert new.scale_source is ScaleSource.DEPTH  # the anchor's metres
    assert_truth(new, 2, IDENTITY, tolerance=0.02)


def test_moving_cameras_with_poses_give_metres_in_the_frame_of_the_poses() -> None:
    predictor = ExactPredictor()
    encoder = encoder_of(predictor)
    # One frame came without its pose: the others place it.
    frames = [frame(i, pose=None if i == 1 else pose_of(i)) for i in range(4)]
    for index, geometry in enumerate(encoder.encode(frames, [])):
        assert geometry.scale_source is ScaleSource.TF
        assert_truth(geometry, index, IDENTITY)


def test_a_single_new_frame_takes_its_scale_from_its_distance_to_posed_anchors() -> None:
    predictor = ExactPredictor()
    encoder = encoder_of(predictor)
    frames = [frame(i, pose=pose_of(i)) for i in range(3)]
    known = encoder.encode(frames, [])
    (new,) = encoder.encode([frame(5, pose=pose_of(5))], anchors_of(frames[:2], known[:2]))
    assert new.scale_source is ScaleSource.TF
    assert_truth(new, 5, IDENTITY)


def test_a_turn_on_the_spot_has_no_scale_but_takes_it_from_a_depth_sensor() -> None:
    predictor = ExactPredictor(step_m=0.0)
    encoder = encoder_of(predictor)
    posed = [frame(i, pose=pose_of(i, 0.0)) for i in range(2)]
    geometries = encoder.encode(posed, [])
    for index, geometry in enumerate(geometries):
        assert geometry.scale_source is ScaleSource.MODEL
        np.testing.assert_allclose(geometry.scene_from_cam, pose_of(index, 0.0), atol=1e-5)
    measured = Frame(
        2_000, np.full((HEIGHT, WIDTH, 3), 1, np.uint8), "", None, true_depth(pose_of(1, 0.0)), pose_of(1, 0.0)
    )
    for index, geometry in enumerate(encoder.encode([posed[0], measured], [])):
        assert geometry.scale_source is ScaleSource.DEPTH
        assert_truth(geometry, index, IDENTITY, step_m=0.0)


@pytest.mark.parametrize("points", ["depth", "points"])
def test_a_model_that_states_its_unit_gives_metres_in_every_window(points: str) -> None:
    encoder = encoder_of(ExactPredictor(scale=0.4), unit_m=2.5, points=points)
    frames = [frame(i) for i in range(2)]
    known = encoder.encode(frames, [])
    new = encoder.encode([frame(i) for i in (2, 3)], anchors_of(frames, known))
    for index, geometry in enumerate([*known, *new]):
        assert geometry.scale_source is ScaleSource.MODEL_METRIC
        assert geometry.scale_source.is_metric
        assert_truth(geometry, index, first_camera_of_truth(0))


def test_what_measures_goes_before_the_unit_that_the_model_states() -> None:
    posed = [frame(i, pose=pose_of(i)) for i in range(3)]
    for index, geometry in enumerate(encoder_of(ExactPredictor(scale=0.4), unit_m=9.0).encode(posed, [])):
        assert geometry.scale_source is ScaleSource.TF
        assert_truth(geometry, index, IDENTITY)
    measured = [frame(i, depth=i == 1) for i in range(2)]
    for index, geometry in enumerate(encoder_of(ExactPredictor(scale=0.4), unit_m=9.0).encode(measured, [])):
        assert geometry.scale_source is ScaleSource.DEPTH
        assert_truth(geometry, index, first_camera_of_truth(0), tolerance=0.01)


def test_a_scene_in_the_models_metres_is_not_moved_by_poses_that_appear() -> None:
    encoder = encoder_of(ExactPredictor(scale=0.4), unit_m=2.5)
    frames = [frame(0), frame(1)]
    known = encoder.encode(frames, [])
    new = encoder.encode([frame(i, pose=pose_of(i), depth=True) for i in (2, 3)], anchors_of(frames, known))
    for index, geometry in zip((2, 3), new, strict=True):
        assert geometry.scale_source is ScaleSource.MODEL_METRIC
        assert_truth(geometry, index, first_camera_of_truth(0))


def test_sensor_depth_alone_gives_metres_and_later_windows_keep_them() -> None:
    predictor = ExactPredictor()
    encoder = encoder_of(predictor)
    frames = [frame(i, depth=i == 1) for i in range(2)]
    known = encoder.encode(frames, [])
    for index, geometry in enumerate(known):
        assert geometry.scale_source is ScaleSource.DEPTH
        assert_truth(geometry, index, first_camera_of_truth(0), tolerance=0.01)
    for depth in (False, True):
        (new,) = encoder.encode([frame(3, depth=depth)], anchors_of(frames, known))
        assert new.scale_source is ScaleSource.DEPTH
        assert_truth(new, 3, first_camera_of_truth(0), tolerance=0.01)


def test_a_scene_in_the_models_unit_stays_in_it_when_poses_appear() -> None:
    predictor = ExactPredictor()
    encoder = encoder_of(predictor)
    frames = [frame(0), frame(1)]
    known = encoder.encode(frames, [])
    new = encoder.encode([frame(i, pose=pose_of(i), depth=True) for i in (2, 3)], anchors_of(frames, known))
    for index, geometry in zip((2, 3), new, strict=True):
        assert geometry.scale_source is ScaleSource.MODEL
        assert_truth(geometry, index, first_camera_of_truth(0, predictor.windows[0].scale))


def test_poses_that_jumped_away_from_the_scene_are_not_followed() -> None:
    predictor = ExactPredictor()
    encoder = encoder_of(predictor)
    known = encoder.encode([frame(i, pose=pose_of(i)) for i in range(2)], [])
    jump = np.eye(4)
    jump[:3, 3] = [5.0, 0.0, 0.0]
    anchors = anchors_of([frame(i, pose=jump @ pose_of(i)) for i in range(2)], known)
    new = encoder.encode([frame(i, pose=jump @ pose_of(i)) for i in (2, 3)], anchors)
    for index, geometry in zip((2, 3), new, strict=True):
        assert geometry.scale_source is ScaleSource.TF  # inherited from the anchors
        assert_truth(geometry, index, IDENTITY)


def test_poses_of_another_motion_are_not_believed() -> None:
    predictor = ExactPredictor()
    wrong = [frame(i, pose=pose_of((3 * i) % 4), depth=True) for i in range(4)]
    geometries = encoder_of(predictor).encode(wrong, [])
    assert {geometry.scale_source for geometry in geometries} == {ScaleSource.DEPTH}


def test_anchors_whose_points_do_not_fit_leave_depth_ratio_and_pose() -> None:
    predictor = ExactPredictor()
    encoder = encoder_of(predictor, points="points")
    truth = true_points(pose_of(0))
    # Points on the right depth but anywhere sideways: no similarity explains them.
    cam = truth @ pose_of(0)[:3, :3] - pose_of(0)[:3, 3] @ pose_of(0)[:3, :3]
    cam[..., :2] = np.random.default_rng(0).uniform(-30, 30, size=cam[..., :2].shape)
    geometry = FrameGeometry(
        to_scene(cam, pose_of(0)), np.ones(cam.shape[:2], np.float32), pose_of(0), camera(), ScaleSource.TF
    )
    (new,) = encoder.encode([frame(1)], [Anchor(frame(0), geometry)])
    assert_truth(new, 1, IDENTITY)


def test_anchors_without_points_cannot_place_a_window() -> None:
    geometry = FrameGeometry(
        np.full((4, 6, 3), np.nan, np.float32), np.zeros((4, 6), np.float32), np.eye(4), camera(6, 4), ScaleSource.MODEL
    )
    with pytest.raises(EncoderError, match="anchor frames have fewer than"):
        encoder_of(ExactPredictor()).encode([frame(1)], [Anchor(frame(0), geometry)])


def test_frames_of_another_shape_are_refused_and_of_another_resolution_welcome() -> None:
    predictor = ExactPredictor()
    encoder = encoder_of(predictor)
    encoder.encode([frame(0), frame(1, shape=(2 * HEIGHT, 2 * WIDTH))], [])
    assert predictor.image_shapes == [(1, 2, 3, HEIGHT, WIDTH)]
    with pytest.raises(EncoderError, match=r"98x70 px at 1000 ns and 70x98 px at 1001 ns"):
        encoder.encode([frame(0), frame(1, shape=(WIDTH, HEIGHT))], [])
    known = encoder.encode([frame(0)], [])
    with pytest.raises(EncoderError, match="differ in shape"):
        encoder.encode([frame(1, shape=(WIDTH, HEIGHT))], anchors_of([frame(0)], known))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((640, 480), (518, 392)),
        ((480, 640), (392, 518)),
        ((1280, 720), (518, 294)),
        ((518, 518), (518, 518)),
        ((2000, 20), (518, 14)),
    ],
)
def test_network_sizes_keep_the_aspect_in_steps_of_a_patch(given: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(*given, long_side_px=518) == expected


def test_images_are_resized_without_being_cut_or_turned() -> None:
    seen = []

    class Recorder(ExactPredictor):
        def __call__(self, images: torch.Tensor, outputs: Collection[VggtOutput]) -> VggtPrediction:
            seen.append(images)
            return super().__call__(images, outputs)

    rgb = np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    rgb[:HEIGHT, :, 0] = 255  # upper half red
    rgb[:, WIDTH:, 2] = 51  # right half a little blue
    VggtGeometryEncoder(Recorder(), device="cpu", image_width_px=WIDTH).encode([Frame(1, rgb)], [])
    image = seen[0][0, 0]
    assert image[0, 5, 50] == 1
    assert image[0, 60, 50] == 0
    assert image[2, 5, 90] == pytest.approx(0.2)
    assert image[2, 5, 5] == 0
    assert float(image.max()) <= 1
    assert float(image.min()) >= 0


@pytest.mark.parametrize(
    ("name", "said"), [("depth", "depth"), ("pose_encoding", "camera"), ("depth_confidence", "confidence")]
)
def test_values_that_are_not_finite_are_an_error_that_names_the_frame(name: str, said: str) -> None:
    predictor = ExactPredictor()

    def spoil(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if name in tensors:
            tensors[name][(1, *(-1,) * (tensors[name].ndim - 1))] = np.nan
        return tensors

    predictor.spoil = spoil
    with pytest.raises(EncoderError, match=rf"{said} output for the frame at 1001 ns"):
        encoder_of(predictor).encode([frame(0), frame(1)], [])


def test_a_field_of_view_of_zero_is_an_error() -> None:
    predictor = ExactPredictor()
    predictor.spoil = lambda tensors: {
        k: v * (np.arange(9) < 8) if k == "pose_encoding" else v for k, v in tensors.items()
    }
    with pytest.raises(EncoderError, match="field of view"):
        encoder_of(predictor).encode([frame(0)], [])


def test_running_out_of_memory_is_an_error_that_says_what_to_make_smaller() -> None:
    def out_of_memory(images: torch.Tensor, outputs: Collection[VggtOutput]) -> VggtPrediction:
        raise torch.OutOfMemoryError("CUDA out of memory")

    encoder = VggtGeometryEncoder(out_of_memory, device="cpu")
    with pytest.raises(EncoderError, match=r"2 frames of 518x364 px: CUDA out of memory.*smaller window"):
        encoder.encode([frame(0), frame(1)], [])


def test_windows_of_a_wrong_length_are_refused() -> None:
    encoder = encoder_of(ExactPredictor(), window_size=2)
    with pytest.raises(EncoderError, match="window of 3 frames"):
        encoder.encode([frame(i) for i in range(3)], [])
    with pytest.raises(EncoderError, match="window of 0 frames"):
        encoder.encode([], [])


@pytest.mark.parametrize(
    "options",
    [
        {"image_width_px": 500},
        {"image_width_px": 0},
        {"window_size": 0},
        {"anchor_count": -1},
        {"points": "voxels"},
        {"unit_m": 0.0},
    ],
)
def test_options_out_of_range_are_named(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        VggtGeometryEncoder(ExactPredictor(), device="cpu", **options)


@pytest.fixture(scope="module")
def tiny_vggt(golden_dir: Path) -> VGGT:
    folder = golden_dir / "vggt_tiny"
    model = VGGT(VggtConfig.from_reference_meta(json.loads((folder / "meta.json").read_text())))
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model.eval()


@pytest.mark.parametrize("points", ["depth", "points"])
def test_a_real_vggt_goes_through_and_repeats_itself(golden_dir: Path, tiny_vggt: VGGT, points: str) -> None:
    with np.load(golden_dir / "vggt_tiny" / "case_nonsquare_S4.npz") as case:
        images = (case["images"][0].transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)
        height, width = case["depth"].shape[2:4]
    frames = [Frame(1 + index, image) for index, image in enumerate(images)]
    encoder = VggtGeometryEncoder(tiny_vggt, device="cpu", image_width_px=width, window_size=2, points=points)
    runs = []
    for _ in range(2):
        known = encoder.encode(frames[:2], [])
        runs.append(known + encoder.encode(frames[2:], anchors_of(frames[:2], known)))
    for first, again in zip(*runs, strict=True):
        assert first.points_scene.shape == (height, width, 3)
        assert np.isfinite(first.points_scene).all()
        assert first.scale_source is ScaleSource.MODEL
        assert first.points_scene.tobytes() == again.points_scene.tobytes()
        assert first.scene_from_cam.tobytes() == again.scene_from_cam.tobytes()
