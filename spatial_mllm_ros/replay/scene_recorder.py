"""Remembers what every frame has seen, also after the scene has let it go."""

from __future__ import annotations

from collections.abc import Callable

from spatial_mllm_ros.replay.coverage_figures import SeenFrame
from spatial_mllm_ros.scene.scene import Scene


class SceneRecorder:
    """Follows one scene: voxel keys and pose of each frame placed in its present epoch, no pixels and no points.

    Attributes:
        seen: the frames in time order; a new epoch of the scene starts it anew.
        fine_voxel_size: edge length of the scene's finest voxels; 0 before the first frame was placed.
        level: of the scene's present grid, whose voxels are 2^level fine ones long.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._epoch = 0
        self.seen: list[SeenFrame] = []
        self.fine_voxel_size = 0.0
        self.level = 0

    def process(self, on_window: Callable[[int], None] = lambda _stamp_ns: None) -> None:
        """Lets the scene encode all frames that wait, and takes down what they have seen.

        Args:
            on_window: called after every window with the stamp of the newest frame placed, once there is one.
        """
        scene = self._scene
        while scene.process(max_calls=1) or scene.pending:
            self._take_down()
            if self.seen:
                on_window(self.seen[-1].stamp_ns)
        self._take_down()  # also when nothing was placed: an epoch may have ended

    def _take_down(self) -> None:
        epoch = self._scene.epoch
        if epoch != self._epoch:
            self._epoch, self.seen = epoch, []
        snapshot = self._scene.snapshot
        self.fine_voxel_size, self.level = snapshot.fine_voxel_size, snapshot.level
        newest_ns = self.seen[-1].stamp_ns if self.seen else 0
        self.seen += [
            SeenFrame(placed.stamp_ns, placed.fine_keys, placed.scene_from_cam)
            for placed in snapshot.placed
            if placed.stamp_ns > newest_ns
        ]
