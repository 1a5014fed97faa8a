from spatial_mllm_ros.recordings.rgbd_folder import RgbdFolder, write_rgbd_folder
from spatial_mllm_ros.replay import live_picture
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips


def test_the_picture_of_a_live_run_is_named_after_its_recording(tmp_path, small_checkpoint, monkeypatch):
    folder = tmp_path / "hall"
    write_rgbd_folder(folder, make_clips([7], ClipConfig(6, 160, 120, rate_hz=5.0))[0].frames())
    recording = RgbdFolder(folder)
    stamps = [frame.stamp_ns for frame in recording]
    drawn = {}
    monkeypatch.setattr(
        live_picture, "write_picture", lambda path, contact, *_, **how: drawn.update(how, contact=contact)
    )
    figures = live_picture.write_live_picture(
        tmp_path / "p.png", recording, {stamps[1]: 40, stamps[4]: 7}, small_checkpoint
    )
    assert drawn["title"] == "hall: what the node's 2 of 6 frames show of the scene"
    assert [(frame.stamp_ns, frame.gain) for frame in drawn["contact"]] == [(stamps[1], 40), (stamps[4], 7)]
    assert drawn["first_stamp_ns"] == stamps[0]
    assert figures.unit == "m"
    assert 0 < figures.selected <= figures.total
