"""Fixtures for tests between real processes, on a ROS domain that each test process has for itself.

Such a test waits for the state that it is about (a message, a value of the diagnostics, a line of the log, the end of a
process), never for a time. PATIENCE_S only ends a test whose state never comes; it has to suffice on a busy machine.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from spatial_mllm_ros.playback.domains import claim_domain

PATIENCE_S = 240.0

# Read by rclpy.init(), here and in the processes that tests start. Every worker of pytest-xdist has an own domain.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(claim_domain())

NODE = [sys.executable, "-c", "from spatial_mllm_ros.ros.node import main; main()", "--ros-args"]


class RunningProcess:
    """A process under test with its log in a file."""

    def __init__(self, command: list[str], log: Path, env: Mapping[str, str] | None) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def exit_code(self) -> int:
        """Of the process, once it has ended by itself or after a signal."""
        return self.process.wait(PATIENCE_S)

    def end(self) -> int:
        """SIGTERM, and SIGKILL for a process that does not obey; returns the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(60)


@pytest.fixture
def start_process(tmp_path) -> Iterator[Callable[..., RunningProcess]]:
    """Starts processes that are ended with the test."""
    started: list[RunningProcess] = []

    def start(command: list[str], env: Mapping[str, str] | None = None) -> RunningProcess:
        started.append(RunningProcess(command, tmp_path / f"process_{len(started)}.log", env))
        return started[-1]

    yield start
    for running in started:
        sys.stdout.write(
            f"--- log of {running.process.args[:3]}\n{running.log}"
        )  # shown by pytest when the test failed
        if running.process.poll() is None:
            running.end()


@pytest.fixture
def start_node(start_process, random_checkpoint) -> Callable[..., RunningProcess]:
    """Starts the spatial node, with random weights, with parameters: start_node(**{"query.queue_size": 2})."""

    def start(**parameters: object) -> RunningProcess:
        parameters = {"checkpoint": str(random_checkpoint), **parameters}
        texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in parameters.items()}
        overrides = [part for name, text in texts.items() for part in ("-p", f"{name}:={text}")]
        return start_process([*NODE, *overrides])

    return start


@pytest.fixture
def ros_client() -> Iterator[object]:
    """A client node with `until(condition)`, which spins until it holds or fails the test."""
    import rclpy

    rclpy.init()
    client = _Client(rclpy.create_node(f"test_client_{os.getpid()}"))
    yield client
    client.node.destroy_node()
    rclpy.try_shutdown()


class _Client:
    def __init__(self, node: object) -> None:
        self.node = node

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> object:
        import rclpy

        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            if result := condition():
                return result
            with contextlib.suppress(IndexError):
                rclpy.spin_once(self.node, timeout_sec=0.05)
        return pytest.fail(f"within {timeout_s:.0f} s it did not happen: {what}")
