"""Records what every frame of a scene has seen, including frames that the scene no longer holds."""

from __future__ import annotations

from collections.abc import Callable

from spatial_mllm_ros.replay.coverage_figures import SeenFrame
from spatial_mllm_ros.scene.scene import Scene


class SceneRecorder:
    """Follows one scene, and records voxel keys and pose of each frame placed in the present epoch.

    Attributes:
        seen: the frames in time order; emptied when a new epoch of the scene begins.
        fine_voxel_size: edge length of the scene's finest voxels; 0 before the first frame is placed.
        level: of the scene's present grid, whose voxels are 2^level fine voxels long.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._epoch = 0
        self.seen: list[SeenFrame] = []
        self.fine_voxel_size = 0.0
        self.level = 0

    def process(self, on_window: Callable[[int], None] = lambda _stamp_ns: None) -> None:
        """Lets the scene encode all frames that wait, and records what these have seen.

        Args:
            on_window: called after every window with the stamp of the newest placed frame, if there is one.
        """
        scene = self._scene
        while scene.process(max_calls=1) or scene.pending:
            self._record()
            if self.seen:
                on_window(self.seen[-1].stamp_ns)
        self._record()  # also where nothing was placed, because an epoch may have ended

    def _record(self) -> None:
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
