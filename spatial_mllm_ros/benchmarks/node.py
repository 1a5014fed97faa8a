"""Measures the image callback of the running node, with processes for the camera, the node and the client."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from spatial_mllm_ros.benchmarks.rows import Row
from spatial_mllm_ros.errors import SpatialMllmError
from spatial_mllm_ros.msg import SpatialAnswer
from spatial_mllm_ros.playback.domains import use_own_domain
from spatial_mllm_ros.ros.conversions import stamp_ns
from spatial_mllm_ros.ros.environment import use_shared_memory_profile
from spatial_mllm_ros.ros.node import SpatialNode
from spatial_mllm_ros.ros.spinning import spin_until_shutdown
from spatial_mllm_ros.srv import SpatialQuery

_RATE_HZ = 30.0
_WARM_UP_IMAGES = 60  # not measured: discovery, the first frames' memory, the first call of the encoder
_QUESTION = "How many chairs are in this room?"


class _TimedNode(SpatialNode):
    """The node, which also records the duration of each image callback and the age of each image at its end."""

    def __init__(self, flowing: Any) -> None:
        super().__init__()
        self._flowing = flowing
        self.durations_ns: list[int] = []
        self.latencies_ns: list[int] = []
        self.arrivals_ns: list[int] = []

    def _on_color(self, message: Image) -> None:
        started_ns = time.perf_counter_ns()
        super()._on_color(message)
        self.arrivals_ns.append(started_ns)
        self.durations_ns.append(time.perf_counter_ns() - started_ns)
        self.latencies_ns.append(time.time_ns() - stamp_ns(message.header.stamp))
        if len(self.arrivals_ns) == _WARM_UP_IMAGES:
            self._flowing.set()


def measure_image_callback(seconds: float = 10.0) -> list[Row]:
    """Rows for 640x480 and 1280x720 at 30 Hz, with and without a question being answered all the time.

    Raises:
        SpatialMllmError: a process did not come up, or answered nothing.
    """
    use_own_domain()
    use_shared_memory_profile()
    rows: list[Row] = []
    for width_px, height_px in ((640, 480), (1280, 720)):
        for asking in (False, True):
            rows += _measured(width_px, height_px, asking, seconds)
    return rows


def _measured(width_px: int, height_px: int, asking: bool, seconds: float) -> list[Row]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "node.json"
        ready, flowing, stop = context.Event(), context.Event(), context.Event()
        node = context.Process(target=_node_process, args=(str(result), ready, flowing, stop), name="node")
        camera = context.Process(target=_camera_process, args=(width_px, height_px, stop), name="camera")
        node.start()
        try:
            if not ready.wait(120):
                raise SpatialMllmError("The node did not become active within 120 s; run spatial_node to see why.")
            camera.start()
            if not flowing.wait(60):
                raise SpatialMllmError(f"Fewer than {_WARM_UP_IMAGES} images reached the node within 60 s.")
            answers = _ask(seconds) if asking else _idle(seconds)
        finally:
            stop.set()
            for process in (camera, node):
                if process.pid is not None:
                    process.join(30)
                if process.is_alive():
                    process.kill()
                    process.join()
        measured = json.loads(result.read_text())
    return _rows(measured, f"{width_px}x{height_px}, {'a question running' if asking else 'idle'}", asking, answers)


def _rows(measured: dict[str, Any], case: str, asking: bool, answers: int) -> list[Row]:
    if asking and not answers:
        raise SpatialMllmError(
            "No question was answered during the measurement; its figures would not mean what they say."
        )
    duration_ms = np.asarray(measured["durations_ns"]) / 1e6
    latency_ms = np.asarray(measured["latencies_ns"]) / 1e6
    if len(duration_ms) < 2:
        raise SpatialMllmError(f"Only {len(duration_ms)} images reached the node [{case}]; is the machine overloaded?")
    span_s = (measured["arrivals_ns"][-1] - measured["arrivals_ns"][0]) / 1e9
    detail = f"{len(duration_ms)} images, {answers} questions answered"
    values = (
        ("image callback rate", (len(duration_ms) - 1) / span_s, "frames/s", ""),
        ("image callback duration p50", np.percentile(duration_ms, 50), "ms", ""),
        ("image callback duration p99", np.percentile(duration_ms, 99), "ms", "<= 5"),
        ("publish to end of callback p50", np.percentile(latency_ms, 50), "ms", ""),
        ("publish to end of callback p99", np.percentile(latency_ms, 99), "ms", ""),
    )
    return [Row(f"{name} [{case}]", value, unit, aim, detail) for name, value, unit, aim in values]


def _node_process(result: str, ready: Any, flowing: Any, stop: Any) -> None:
    overrides = ["autostart:=false", "buffer.rate_hz:=5.0", "query.max_new_tokens:=4096", "selection.frames:=8"]
    arguments = ["--ros-args", *(part for override in overrides for part in ("-p", override))]
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    node = _TimedNode(flowing)
    node.trigger_configure()
    node.trigger_activate()
    ready.set()
    spin_until_shutdown(node, stop.is_set)
    lists = {"durations_ns": node.durations_ns, "latencies_ns": node.latencies_ns, "arrivals_ns": node.arrivals_ns}
    Path(result).write_text(json.dumps({name: values[_WARM_UP_IMAGES:] for name, values in lists.items()}))


def _camera_process(width_px: int, height_px: int, stop: Any) -> None:
    rclpy.init()
    node = rclpy.create_node("benchmark_camera")
    publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
    noise = np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    data = array("B")
    data.frombytes(noise.tobytes())
    message = Image(height=height_px, width=width_px, encoding="rgb8", step=3 * width_px, data=data)
    next_s = time.monotonic()
    while not stop.is_set():
        now_ns = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now_ns, 1_000_000_000)
        publisher.publish(message)
        next_s += 1.0 / _RATE_HZ
        stop.wait(max(0.0, next_s - time.monotonic()))
    node.destroy_node()
    rclpy.try_shutdown()


def _idle(seconds: float) -> int:
    time.sleep(seconds)
    return 0


def _ask(seconds: float) -> int:
    """Asks one question after the other until ``seconds`` are over; returns how many were worked on."""
    rclpy.init()
    node = rclpy.create_node("benchmark_asker")
    client: Any = node.create_client(SpatialQuery, "spatial_query")
    answered = 0
    try:
        if not client.wait_for_service(15):
            raise SpatialMllmError("The service spatial_query did not appear within 15 s.")
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            request = SpatialQuery.Request(question=_QUESTION)
            request.deadline.sec = int(seconds)
            future = client.call_async(request)
            rclpy.spin_until_future_complete(node, future, timeout_sec=3 * seconds)
            if not future.done():
                raise SpatialMllmError("A question was not answered within three times its deadline.")
            answered += bool(future.result().answer.evidence)
            if future.result().answer.status == SpatialAnswer.STATUS_NO_FRAMES:
                time.sleep(0.2)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return answered
