import itertools

import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.rooms.clips import ClipConfig
from spatial_mllm_ros.rooms.stream import RoomStream, StreamConfig
from spatial_mllm_ros.rooms.world.world import SPLITS

SMALL = ClipConfig(frames=3, width_px=32, height_px=24)


def same(one, two):
    return (
        one.number == two.number
        and all(torch.equal(a.rgb, b.rgb) for a, b in zip(one.clips, two.clips, strict=True))
        and one.questions == two.questions
    )


def test_a_stream_that_goes_on_later_gives_the_same_batches():
    whole = list(itertools.islice(RoomStream(StreamConfig(worlds=2, clip=SMALL)), 4))
    rest = itertools.islice(RoomStream(StreamConfig(worlds=2, clip=SMALL, first_batch=2)), 2)
    assert all(same(a, b) for a, b in zip(whole[2:], rest, strict=True))
    seeds = [clip.world.seed for batch in whole for clip in batch.clips]
    assert seeds == list(range(8))
    assert any(questions for batch in whole for questions in batch.questions)


def test_workers_of_a_loader_change_nothing():
    config = StreamConfig(split="val", worlds=1, clip=SMALL)
    alone = list(itertools.islice(RoomStream(config), 3))
    loader = torch.utils.data.DataLoader(RoomStream(config), batch_size=None, num_workers=2)
    together = list(itertools.islice(loader, 3))
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


def test_a_split_that_is_used_up_begins_again_with_other_walks():
    count = SPLITS["test"][1] - SPLITS["test"][0]
    stream = RoomStream(StreamConfig(split="test", worlds=1, clip=SMALL, questions_per_type=0))
    first, again = stream.batch(0), stream.batch(count)
    assert first.clips[0].world.seed == again.clips[0].world.seed
    assert not torch.equal(first.clips[0].rgb, again.clips[0].rgb)
    assert first.questions == [[]]


@pytest.mark.parametrize("options", [{"split": "all"}, {"worlds": 0}, {"first_batch": -1}])
def test_impossible_streams_are_refused(options):
    with pytest.raises(ConfigurationError, match="StreamConfig"):
        StreamConfig(**options)
