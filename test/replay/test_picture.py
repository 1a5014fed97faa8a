import cv2
import numpy as np
import pytest

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.replay.coverage_figures import SeenFrame, coverage_figures, uniform_indices
from spatial_mllm_ros.replay.picture import (
    TRUTH,
    ContactFrame,
    KnownScene,
    _columns_from_above,
    map_plane,
    write_picture,
)
from spatial_mllm_ros.scene.voxels import pack_cells


def looking(forward, down):
    """Camera-to-scene whose z axis is ``forward`` and whose y axis is ``down``."""
    pose = np.eye(4)
    pose[:3, 2], pose[:3, 1] = forward, down
    pose[:3, 0] = np.cross(down, forward)
    return pose


def keys(*cells):
    return np.unique(pack_cells(np.array(cells)))


@pytest.mark.parametrize(
    ("down", "labels"), [((0, 0, -1.0), ("x", "y")), ((0, 1.0, 0), ("x", "z")), ((1.0, 0, 0), ("z", "y"))]
)
def test_the_map_is_seen_from_above_and_not_mirrored(down, labels):
    down = np.array(down)
    forward = np.roll(down, 1)
    plane = map_plane([looking(forward, down)] * 3)
    assert plane.labels == labels
    assert np.allclose(np.cross(plane.across, plane.along), -down)


def test_a_tilted_scene_is_drawn_along_the_first_view():
    down = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
    forward = np.array([1.0, -1.0, 0.0]) / np.sqrt(2)
    plane = map_plane([looking(forward, down)])
    assert np.allclose(plane.along, forward)
    assert np.allclose(np.cross(plane.across, plane.along), -down)
    assert plane.labels[1].startswith("forward")


def test_nodding_cameras_agree_on_what_is_up():
    poses = []
    for angle in (-0.5, 0.3, 0.6):
        forward = np.array([np.cos(angle), 0.0, np.sin(angle)])
        poses.append(looking(forward, np.array([np.sin(angle), 0.0, -np.cos(angle)])))
    assert map_plane(poses).labels == ("x", "y")


def test_columns_show_the_difference_between_the_selections():
    # class of each voxel: 0 neither, 1 both, 2 only selected, 3 only uniform; columns x = 0, 1, 3
    x = np.array([0, 0, 0, 1, 1, 1, 3, 3, 3, 3, 3]) + 0.5
    classes = np.array([1, 1, 2, 0, 0, 1, 3, 3, 1, 1, 2])
    raster, extent = _columns_from_above(x, np.full(11, 7.5), classes, 1.0)
    assert raster.tolist() == [[3, 1, 0, 4]]
    assert extent == (0.0, 4.0, 7.0, 8.0)


def test_uniform_frames_are_spread_over_the_whole_recording():
    assert uniform_indices(100, 5) == [0, 25, 50, 74, 99]
    assert uniform_indices(3, 8) == [0, 1, 2]
    assert uniform_indices(9, 1) == [4]
    assert uniform_indices(0, 4) == []


def seen_frames():
    down = np.array([0.0, 1.0, 0.0])
    poses = [looking(np.array([np.sin(a), 0, np.cos(a)]), down) for a in (0.0, 0.4, 0.8, 1.2)]
    for index, pose in enumerate(poses):
        pose[:3, 3] = (0.1 * index, 0.0, -0.3)
    cells = [
        [(0, 0, 0), (1, 0, 0)],
        [(0, 0, 0), (1, 0, 0), (2, 0, 0)],
        [(2, 0, 0), (9, 0, 4), (9, 1, 4), (9, 2, 4)],
        [(2, 0, 0)],
    ]
    return [SeenFrame((i + 1) * 10**9, keys(*c), p) for i, (c, p) in enumerate(zip(cells, poses, strict=True))]


def test_figures_count_voxels_of_one_grid():
    seen = seen_frames()
    figures = coverage_figures(seen, [1 * 10**9, 3 * 10**9], level=0, fine_voxel_size=0.5, unit="m")
    assert (figures.selected, figures.uniform, figures.offline_greedy, figures.total) == (6, 3, 6, 6)
    assert figures.uniform_stamps_ns == (1 * 10**9, 4 * 10**9)
    assert figures.offline_greedy_stamps_ns == (1 * 10**9, 3 * 10**9)
    coarse = coverage_figures(seen, [4 * 10**9], level=2, fine_voxel_size=0.5, unit="m")
    assert (coarse.total, coarse.selected, coarse.voxel_size) == (2, 1, 2.0)


def test_a_selected_frame_without_geometry_sees_nothing():
    figures = coverage_figures(seen_frames(), [3 * 10**9, 77], level=0, fine_voxel_size=0.5, unit="m")
    assert figures.selected == 4


@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("shape", [(48, 64, 3), (64, 36, 3)])
def test_a_picture_is_written_for_any_number_and_shape_of_frames(tmp_path, count, shape):
    seen = seen_frames()
    contact = [ContactFrame((i + 1) * 10**9, np.full(shape, 40 + 10 * i, np.uint8), i) for i in range(count)]
    figures = coverage_figures(seen, [c.stamp_ns for c in contact], level=0, fine_voxel_size=0.5, unit="relative")
    path = tmp_path / "picture.png"
    for _ in range(2):
        before = path.read_bytes() if path.exists() else None
        write_picture(path, contact, seen, figures, fine_voxel_size=0.5, title="a clip", first_stamp_ns=10**9)
    assert path.read_bytes() == before  # the same input gives the same bytes
    image = cv2.imread(str(path))
    assert image.shape[1] > image.shape[0] > 500
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_known_is_drawn_into_the_map_and_below_the_picture(tmp_path):
    seen, contact = seen_frames(), [ContactFrame(10**9, np.full((48, 64, 3), 90, np.uint8), 1)]
    figures = coverage_figures(seen, [10**9], level=0, fine_voxel_size=0.5, unit="m")
    room = np.array([[-1.0, 0, -1], [6, 0, -1], [6, 0, 3], [-1, 0, 3]])
    known = KnownScene([room], [("chair", room * 0.2 + 1)], ["one answer", "another"])
    options = {"fine_voxel_size": 0.5, "title": "a clip", "first_stamp_ns": 10**9}
    images = []
    for name, extra in (("plain", {}), ("known", {"known": known})):
        write_picture(tmp_path / f"{name}.png", contact, seen, figures, **options, **extra)
        images.append(cv2.imread(str(tmp_path / f"{name}.png"))[:, :, ::-1].astype(int))
    plain, drawn = images
    truth = np.array([int(TRUTH[i : i + 2], 16) for i in (1, 3, 5)])
    lines = [(np.abs(image - truth).sum(-1) < 40).sum() for image in images]
    assert lines[0] == 0
    assert lines[1] > 300
    assert drawn.shape[0] > plain.shape[0] + 50
    assert (drawn[plain.shape[0] :] < 128).any()  # the notes


def test_a_note_that_is_too_long_for_a_line_goes_on_in_the_next_one(tmp_path):
    seen, contact = seen_frames(), [ContactFrame(10**9, np.full((48, 64, 3), 90, np.uint8), 1)]
    figures = coverage_figures(seen, [10**9], level=0, fine_voxel_size=0.5, unit="m")
    images = []
    for words in (1, 60, 61):
        known = KnownScene(notes=["standing " * words])
        path = tmp_path / f"{words}.png"
        write_picture(path, contact, seen, figures, fine_voxel_size=0.5, title="a", first_stamp_ns=10**9, known=known)
        images.append(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    short, long, longer = images
    assert long.shape[0] > short.shape[0] + 20
    assert (long[-60:, -10:] > 200).all()  # nothing reaches the right edge
    assert (long[-60:, -long.shape[1] // 4 :] < 128).any()
    assert (long.shape != longer.shape) or (long != longer).any()  # no word is lost


def test_nothing_to_draw_is_an_error(tmp_path):
    figures = coverage_figures(seen_frames(), [10**9], level=0, fine_voxel_size=0.5, unit="m")
    with pytest.raises(ConfigurationError, match="no frame to draw"):
        write_picture(tmp_path / "p.png", [], seen_frames(), figures, fine_voxel_size=0.5, title="", first_stamp_ns=0)
