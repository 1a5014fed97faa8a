import numpy as np
import pytest

from spatial_mllm_ros.encoders.sensor_depth import SensorDepthEncoder
from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scoring.rooms import room_set
from spatial_mllm_ros.scoring.rooms.room_set import RoomSet, RoomSetConfig, space_aware_indices, uniform_indices
from spatial_mllm_ros.scoring.runner.clips import FrameChoice


def test_uniform_frames_are_the_middles_of_equal_parts():
    assert uniform_indices(64, 16)[:3] == (2, 6, 10)
    assert uniform_indices(10, 10) == tuple(range(10))
    assert uniform_indices(9, 1) == (4,)


@pytest.mark.parametrize("count", [2, 5])
def test_the_choice_by_coverage_is_that_of_the_scene(rooms, count):
    clip = rooms[1].clip
    scene = Scene(SceneConfig(keyframes=0, rate_hz=0.0, selected_frames=count), SensorDepthEncoder(pixel_stride=1))
    for frame in clip.frames():
        scene.add(frame)
        scene.process()
    chosen = clip.stamps_ns[list(space_aware_indices(clip, (count,))[0])]
    assert tuple(chosen) == scene.snapshot.selection.stamps_ns
    assert count == len(chosen)


def test_rooms_follow_from_the_configuration_and_are_asked_about_what_their_frames_show(rooms):
    assert len({room.name for room in rooms}) == 3
    for room in rooms:
        assert {question.scene for question in room.questions} == {room.name}
        assert len({question.type for question in room.questions}) == len(room.questions)  # one of each type
        assert set(room.chosen) == {(count, choice) for count in (3, 6) for choice in FrameChoice}
        assert all(len(indices) == count for (count, _), indices in room.chosen.items())
    # More is seen on the whole walk than in four frames of it.
    assert sum(len(room.walk_questions) for room in rooms) > sum(len(room.questions) for room in rooms)
    seen = rooms[0].clip.annotation.visibility.of_frames(np.array(rooms[0].uniform))
    counted = [question for question in rooms[0].questions if question.type.value == "object_counting"]
    column = {thing.id: n for n, thing in enumerate(rooms[0].clip.annotation.objects)}
    assert all(seen.pixels[:, column[number]].any() for question in counted for number in question.objects)


def test_a_room_that_cannot_be_made_is_counted_and_the_others_are_asked(monkeypatch):
    make, broken = room_set.make_clips, room_set.split_seed("test", 1)

    def fragile(seeds, config):
        if seeds == [broken]:
            raise SourceError("The second room is broken.")
        return make(seeds, config)

    monkeypatch.setattr(room_set, "make_clips", fragile)
    rooms = RoomSet(RoomSetConfig(worlds=3, frames=2, compared_frames=(), candidates=2, width_px=56, height_px=42))
    assert [len(group) for group in rooms] == [2]
    assert rooms.failed == {"SOURCE": 1}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"split": "all"}, "'all'"),
        ({"worlds": 1}, "worlds is 1"),
        ({"frames": 65}, "65 frames"),
        ({"compared_frames": (0,)}, "0 frames"),
    ],
)
def test_impossible_sets_are_refused(wrong, said):
    with pytest.raises(ConfigurationError, match=said):
        RoomSetConfig(**wrong)
