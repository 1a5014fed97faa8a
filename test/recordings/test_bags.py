import dataclasses

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.recordings.bag_topics import BagTopics
from spatial_mllm_ros.recordings.bag_writer import write_bag
from spatial_mllm_ros.recordings.bags import Bag, bag_path

from .conftest import make_frames, rotation

STORE = get_typestore(Stores.ROS2_JAZZY)
T = STORE.types
MS = 1_000_000


def header(stamp_ns, frame_id):
    time = T["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return T["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def image(stamp_ns, pixels, encoding, frame_id="camera_optical"):
    return T["sensor_msgs/msg/Image"](
        header(stamp_ns, frame_id), pixels.shape[0], pixels.shape[1], encoding, 0, pixels.strides[0],
        np.ascontiguousarray(pixels).reshape(-1).view(np.uint8),
    )  # fmt: skip


def info(stamp_ns, k, width, height, frame_id="camera_optical"):
    roi = T["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([k[0], 0, k[2], 0, k[1], k[3], 0, 0, 1.0])
    return T["sensor_msgs/msg/CameraInfo"](
        header(stamp_ns, frame_id), height, width, "plumb_bob", np.zeros(5), k, np.eye(3).reshape(9), np.zeros(12),
        0, 0, roi,
    )  # fmt: skip


def transform(stamp_ns, parent, child, translation, angle_rad=0.0):
    quaternion = (0.0, 0.0, float(np.sin(angle_rad / 2)), float(np.cos(angle_rad / 2)))
    return T["geometry_msgs/msg/TransformStamped"](
        header(stamp_ns, parent),
        child,
        T["geometry_msgs/msg/Transform"](
            T["geometry_msgs/msg/Vector3"](*translation), T["geometry_msgs/msg/Quaternion"](*quaternion)
        ),
    )


def tf(*transforms):
    return T["tf2_msgs/msg/TFMessage"](list(transforms))


def pose(stamp_ns, translation):
    return T["geometry_msgs/msg/PoseStamped"](
        header(stamp_ns, "map"),
        T["geometry_msgs/msg/Pose"](
            T["geometry_msgs/msg/Point"](*translation), T["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
        ),
    )


def record(path, messages):
    """Writes (time of recording in ns, topic, message) as they come."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections = {}
        for recorded_ns, topic, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], recorded_ns, STORE.serialize_cdr(message, kind))
    return path


def color(value=0, shape=(12, 16)):
    return np.full((*shape, 3), value, np.uint8)


def depth(value=1500, shape=(12, 16)):
    return np.full(shape, value, np.uint16)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_written_frames_read_back_bit_for_bit(tmp_path, frames, storage):
    assert write_bag(tmp_path / "bag", frames, storage=storage) == 6
    with Bag(tmp_path / "bag") as bag:
        assert (bag.name, bag.frame_count) == ("bag", 6)
        for _ in range(2):
            for read, written in zip(bag, frames, strict=True):
                assert read.stamp_ns == written.stamp_ns
                assert read.camera_frame_id == written.camera_frame_id
                assert np.array_equal(read.rgb, written.rgb)
                assert np.array_equal(read.depth_m, written.depth_m, equal_nan=True)
                assert np.allclose(read.scene_from_cam, written.scene_from_cam, atol=1e-12)
                assert read.intrinsics == written.intrinsics


def test_jpeg_bags_and_single_storage_files_are_read(tmp_path, frames):
    write_bag(tmp_path / "bag", frames, color="jpeg")
    (tmp_path / "bag" / "metadata.yaml").unlink()
    path = bag_path(tmp_path / "bag")
    assert path.suffix == ".mcap"
    with Bag(path) as bag:
        read = list(bag)
    assert [frame.stamp_ns for frame in read] == [frame.stamp_ns for frame in frames]
    assert np.abs(read[3].rgb.astype(int) - frames[3].rgb).mean() < 3


def test_color_alone_gives_frames_without_the_rest(tmp_path, frames):
    plain = [dataclasses.replace(f, intrinsics=None, depth_m=None, scene_from_cam=None) for f in frames]
    write_bag(tmp_path / "bag", plain)
    with Bag(tmp_path / "bag") as bag:
        frame = next(iter(bag))
    assert (frame.intrinsics, frame.depth_m, frame.scene_from_cam) == (None, None, None)


def test_depth_is_paired_by_stamp_and_not_by_order(tmp_path):
    messages = []
    for index in range(5):
        stamp = (index + 1) * 100 * MS
        if index != 2:  # this depth image is lost, the others come late and 8 ms off
            messages.append((stamp + 60 * MS, "/depth", image(stamp + 8 * MS, depth(1000 + index), "16UC1")))
        messages.append((stamp, "/image", image(stamp, color(index), "rgb8")))
    messages.sort(key=lambda item: item[0])
    with Bag(record(tmp_path / "bag", messages)) as bag:
        pairs = [(int(f.rgb[0, 0, 0]), round(float(f.depth_m[0, 0]) * 1000)) for f in bag]
        assert pairs == [(0, 1000), (1, 1001), (3, 1003), (4, 1004)]
        assert bag.rejected == {"no_depth": 1}


def test_memory_stays_bounded_when_depth_never_comes(tmp_path):
    messages = [(1, "/depth", image(1, depth(), "16UC1"))]
    messages += [((i + 1) * 100 * MS, "/image", image((i + 1) * 100 * MS, color(i), "rgb8")) for i in range(60)]
    messages += [(9_000 * MS, "/depth", image(6000 * MS, depth(), "16UC1"))]
    with Bag(record(tmp_path / "bag", messages)) as bag:
        assert [frame.stamp_ns for frame in bag] == [6000 * MS]
        assert bag.rejected == {"no_depth": 59}


def test_several_color_topics_are_listed_and_one_can_be_named(tmp_path):
    messages = []
    for value, side in enumerate(("left", "right")):
        for index in range(2):
            stamp = (index + 1) * 100 * MS
            messages.append((stamp, f"/{side}/image_raw", image(stamp, color(value), "bgr8")))
    path = record(tmp_path / "bag", messages)
    with pytest.raises(
        SourceError, match=r"/left/image_raw, /right/image_raw. Name one, for example: --topic color=/left/image_raw"
    ):
        Bag(path)
    with Bag(path, topics=BagTopics(color="right/image_raw")) as bag:
        assert next(iter(bag)).rgb[0, 0, 0] == 1
    with pytest.raises(SourceError, match=r"no topic /middle"):
        Bag(path, topics=BagTopics(color="/middle"))


def test_the_compressed_twin_and_grey_cameras_do_not_make_the_choice_ambiguous(tmp_path, frames):
    twin = T["sensor_msgs/msg/CompressedImage"](header(100 * MS, "c"), "jpeg", np.zeros(4, np.uint8))
    messages = [
        (1, "/cam/image", image(100 * MS, color(7), "rgb8", "c")),
        (2, "/cam/image/compressed", twin),
        (3, "/infra/image", image(100 * MS, color()[:, :, 0], "mono8", "c")),
        (4, "/depth/camera_info", info(100 * MS, (9.0, 9.0, 8.0, 6.0), 16, 12, "d")),
        (5, "/cam/camera_info", info(100 * MS, (11.0, 12.0, 8.0, 6.0), 16, 12, "c")),
    ]
    with Bag(record(tmp_path / "bag", messages)) as bag:
        frame = next(iter(bag))
    assert frame.rgb[0, 0, 0] == 7
    assert frame.intrinsics == Intrinsics(11.0, 12.0, 8.0, 6.0, 16, 12)


def test_depth_of_another_camera_is_refused_unless_named_or_left_out(tmp_path):
    path = record(
        tmp_path / "bag",
        [
            (1, "/color", image(100 * MS, color(), "rgb8", "color_optical")),
            (2, "/depth", image(100 * MS, depth(), "16UC1", "depth_optical")),
        ],
    )
    with pytest.raises(SourceError, match="not registered"):
        Bag(path)
    with Bag(path, topics=BagTopics(depth="/depth")) as bag:
        assert next(iter(bag)).depth_m is not None
    with Bag(path, topics=BagTopics(depth="")) as bag:
        assert next(iter(bag)).depth_m is None


def test_an_uncalibrated_camera_and_one_of_another_mode_give_no_intrinsics(tmp_path, caplog):
    for number, message in enumerate(
        (info(100 * MS, (0.0, 0.0, 0.0, 0.0), 16, 12), info(100 * MS, (9.0, 9.0, 8.0, 6.0), 16, 9))
    ):
        messages = [(1, "/image", image(100 * MS, color(), "rgb8")), (2, "/camera_info", message)]
        with Bag(record(tmp_path / f"bag{number}", messages)) as bag:
            assert next(iter(bag)).intrinsics is None
    assert "calibrate the camera" in caplog.text
    assert "16x9 but the image is 16x12, which is not the same field of view" in caplog.text


def test_a_camera_info_of_the_full_size_is_scaled_to_the_image(tmp_path):
    messages = [
        (1, "/image", image(100 * MS, color(), "rgb8")),
        (2, "/camera_info", info(100 * MS, (20.0, 22.0, 15.5, 11.5), 32, 24)),
    ]
    with Bag(record(tmp_path / "bag", messages)) as bag:
        assert next(iter(bag)).intrinsics == Intrinsics(10.0, 11.0, 7.5, 5.5, 16, 12)


def test_poses_come_from_the_tf_chain_interpolated_to_the_image(tmp_path):
    messages = [
        (1, "/tf_static", tf(transform(0, "base_link", "camera_optical", (0.5, 0.0, 1.0)))),
        (2, "/tf", tf(transform(0, "map", "odom", (10.0, 0.0, 0.0)))),
        (3, "/tf", tf(transform(400 * MS, "map", "odom", (10.0, 0.0, 0.0)))),
        (4, "/tf", tf(transform(100 * MS, "odom", "base_link", (0.0, 0.0, 0.0), 0.0))),
        (5, "/tf", tf(transform(300 * MS, "odom", "base_link", (0.0, 4.0, 0.0), np.pi / 2))),
        (6, "/image", image(200 * MS, color(), "rgb8")),
        (7, "/image", image(350 * MS, color(), "rgb8")),  # after the last odom sample by more than the tolerance
    ]
    with Bag(record(tmp_path / "bag", messages)) as bag:
        (frame,) = bag
        assert bag.rejected == {"no_pose": 1}
    expected = np.eye(4)
    expected[:3, :3] = rotation((0, 0, 1), np.pi / 4)
    expected[:3, 3] = (10.0 + 0.5 * np.cos(np.pi / 4), 2.0 + 0.5 * np.sin(np.pi / 4), 1.0)
    assert np.allclose(frame.scene_from_cam, expected, atol=1e-12)


def test_the_fixed_frame_can_be_chosen_and_must_be_reachable(tmp_path):
    messages = [
        (
            1,
            "/tf_static",
            tf(transform(0, "map", "odom", (10.0, 0, 0)), transform(0, "odom", "camera_optical", (1.0, 0, 0))),
        ),
        (2, "/image", image(200 * MS, color(), "rgb8")),
    ]
    path = record(tmp_path / "bag", messages)
    for fixed_frame, x in (("odom", 1.0), (None, 11.0)):
        with Bag(path, topics=BagTopics(fixed_frame=fixed_frame)) as bag:
            assert next(iter(bag)).scene_from_cam[0, 3] == x
    with pytest.raises(SourceError, match="it leads to: odom, map"):
        Bag(path, topics=BagTopics(fixed_frame="earth"))
    with Bag(path, topics=BagTopics(pose="")) as bag:
        assert next(iter(bag)).scene_from_cam is None


def test_a_lost_pose_is_not_bridged_as_if_it_had_been_right(tmp_path):
    messages = []
    for index in range(4):
        stamp = (index + 1) * 100 * MS
        messages.append((stamp, "/camera_pose", pose(stamp, (np.nan if index == 1 else index * 1.0, 0.0, 0.0))))
        messages.append((stamp, "/image", image(stamp, color(index), "rgb8")))
    with Bag(record(tmp_path / "bag", messages)) as bag:
        assert [int(frame.rgb[0, 0, 0]) for frame in bag] == [0, 2, 3]
        assert bag.rejected == {"pose": 1}


def test_malformed_images_and_backward_stamps_are_counted(tmp_path):
    broken = dataclasses.replace(image(200 * MS, color(), "rgb8"), data=np.zeros(7, np.uint8))
    messages = [
        (1, "/image", image(100 * MS, color(), "rgb8")),
        (2, "/image", broken),
        (3, "/image", image(50 * MS, color(), "rgb8")),
        (4, "/image", image(300 * MS, color(), "yuv422")),
        (5, "/image", image(0, color(), "rgb8")),
        (6, "/image", image(400 * MS, color(), "rgb8")),
    ]
    with Bag(record(tmp_path / "bag", messages)) as bag:
        assert [frame.stamp_ns for frame in bag] == [100 * MS, 400 * MS]
        assert bag.rejected == {"payload": 1, "stamp_order": 1, "encoding": 1, "stamp": 1}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_cut_short_is_an_error_that_names_it(tmp_path, frames, storage):
    write_bag(tmp_path / "bag", frames, storage=storage)
    (file,) = (p for p in (tmp_path / "bag").iterdir() if p.suffix in (".mcap", ".db3"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(SourceError, match="bag"), Bag(tmp_path / "bag") as bag:
        list(bag)


def test_a_bag_without_images_says_what_it_has(tmp_path):
    path = record(tmp_path / "bag", [(1, "/camera_pose", pose(100 * MS, (0.0, 0.0, 0.0)))])
    with pytest.raises(SourceError, match=r"no colour image topic; it has: /camera_pose"):
        Bag(path)


def test_writing_to_a_place_that_is_taken_or_in_another_format_is_refused(tmp_path):
    with pytest.raises(SourceError, match="exists already"):
        write_bag(tmp_path, make_frames(1))
    with pytest.raises(ConfigurationError, match="h264"):
        write_bag(tmp_path / "bag", make_frames(1), color="h264")


def test_a_failure_while_writing_leaves_no_half_bag(tmp_path):
    def failing():
        yield from make_frames(2)
        raise SourceError("the camera is gone")

    with pytest.raises(SourceError, match="camera is gone"):
        write_bag(tmp_path / "bag", failing())
    assert not (tmp_path / "bag").exists()


def test_topics_are_named_on_a_command_line():
    topics = BagTopics.from_options(["color=/left/image_raw", "depth="])
    assert topics == BagTopics(color="/left/image_raw", depth="")
    for wrong in ("colour=/x", "color", "color=", "fixed_frame="):
        with pytest.raises(ConfigurationError, match="NAME=TOPIC"):
            BagTopics.from_options([wrong])
