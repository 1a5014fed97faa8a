"""The services `~/save_scene` and `~/load_scene`: what the node has seen, kept across its restarts.

The scene is read and replaced in the worker's thread, between two questions and two windows, so nothing is torn; files
are read and written in a thread of their own, so that questions are answered meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future

from spatial_mllm_ros.errors import SpatialMllmError, StorageError
from spatial_mllm_ros.ros.worker import SessionWorker
from spatial_mllm_ros.scene.saved.save_load import SavedScene, SceneOrigin, read_scene, write_scene
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.srv import LoadScene, SaveScene


@dataclass(frozen=True, eq=False)
class ActiveScene:
    """What an active node works with.

    Attributes:
        root: the only folder in which scenes are written and read.
        origin: of this run.
        on_loaded: called in the worker's thread when another scene has taken the place of the present one.
    """

    scene: Scene
    worker: SessionWorker
    root: Path
    origin: SceneOrigin
    on_loaded: Callable[[], None]


class SceneMemory:
    """The two services of a node; one request at a time.

    Args:
        node: the rclpy node.
        active: what it works with at the moment; None while it is not active.
    """

    def __init__(self, node: Any, active: Callable[[], ActiveScene | None]) -> None:
        self._node = node
        self._active = active
        self._files = ThreadPoolExecutor(1, thread_name_prefix="scene-memory")
        self.busy = False  #: a request has not been answered yet
        group = ReentrantCallbackGroup()
        self._services = (
            node.create_service(SaveScene, "~/save_scene", self._on_save, callback_group=group),
            node.create_service(LoadScene, "~/load_scene", self._on_load, callback_group=group),
        )

    def close(self) -> None:
        """Waits for a file that is being written; for the end of the process."""
        self._files.shutdown()

    async def _on_save(self, request: SaveScene.Request, response: SaveScene.Response) -> SaveScene.Response:
        response.success, response.message, saved = await self._guarded(
            lambda active: self._save(active, request.directory)
        )
        if saved is not None:
            response.frames, response.bytes = saved.frames, saved.nbytes
        return response

    async def _on_load(self, request: LoadScene.Request, response: LoadScene.Response) -> LoadScene.Response:
        response.success, response.message, saved = await self._guarded(
            lambda active: self._load(active, request.directory)
        )
        if saved is not None:
            response.frames = saved.frames
        active = self._active()
        response.epoch = 0 if active is None else active.scene.epoch
        return response

    async def _guarded(self, work: Callable[[ActiveScene], Any]) -> tuple[bool, str, SavedScene | None]:
        """Success, a sentence for the client, and what was saved or loaded; never raises."""
        active = self._active()
        if active is None:
            return False, "The node is not active; activate it (lifecycle) and ask again.", None
        if self.busy:
            return False, "Another scene is being saved or loaded; ask again when that is done.", None
        self.busy = True
        try:
            message, saved = await work(active)
        except SpatialMllmError as error:
            return False, str(error), None
        except Exception as error:  # noqa: BLE001 (a client waits: it must get an answer whatever happens)
            self._node.get_logger().error(f"Saving or loading a scene failed in a way nobody foresaw: {error!r}")
            return False, f"Unexpected {type(error).__name__}: {error}. The node's log says more.", None
        finally:
            self.busy = False
        self._node.get_logger().info(message)
        return True, message, saved

    async def _save(self, active: ActiveScene, directory: str) -> tuple[str, SavedScene]:
        scene = active.scene
        content = await self._in_worker(active.worker, scene.content)
        saved = await self._in_files_thread(
            lambda: write_scene(
                content, scene.config, scene.encoder_name, directory, root=active.root, origin=active.origin
            )
        )
        left_out = f" {saved.waiting} frames still waited for the encoder and are not in it." if saved.waiting else ""
        return f"Saved {_told(saved)}, {saved.nbytes} bytes.{left_out}", saved

    async def _load(self, active: ActiveScene, directory: str) -> tuple[str, SavedScene]:
        saved, content = await self._in_files_thread(
            lambda: read_scene(directory, root=active.root, origin=active.origin, config=active.scene.config)
        )

        reason = f"the scene saved in {saved.folder} takes its place"
        epoch = await self._in_worker(active.worker, lambda: active.scene.take_over(content, reason))
        active.worker.do(active.on_loaded)
        if active.origin.scene_frame and saved.posed_frames:
            assumed = (
                f"New frames join it by their poses in '{active.origin.scene_frame}', which must be as it was then."
            )
        else:
            assumed = "New frames join it without poses, so the camera must see what it saw last when it was saved."
        return f"Loaded {_told(saved)}, as epoch {epoch}. {assumed}", saved

    async def _in_worker(self, worker: SessionWorker, work: Callable[[], Any]) -> Any:
        stopped = StorageError("busy", "The node was deactivated meanwhile; activate it and ask again.")
        return await self._awaited(lambda run, fail: worker.do(run, refused=lambda: fail(stopped)), work)

    async def _in_files_thread(self, work: Callable[[], Any]) -> Any:
        return await self._awaited(lambda run, _fail: self._files.submit(run), work)

    async def _awaited(self, start: Callable[[Callable[[], None], Callable[[Exception], None]], Any], work: Any) -> Any:
        """Has ``start`` run ``work`` in another thread and gives its result, or raises what it raised."""
        executor = self._node.executor
        future: Future = Future(executor=executor)

        def finish(result: Any, error: Exception | None) -> None:
            future.set_result((result, error))
            if executor is not None:
                executor.wake()  # an idle executor would otherwise not notice the result

        def run() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 (it is raised again where it is awaited)
                finish(None, error)
            else:
                finish(result, None)

        start(run, lambda error: finish(None, error))
        result, error = await future
        if error is not None:
            raise error
        return result


def _told(saved: SavedScene) -> str:
    chosen = saved.selection
    share = f", of which {len(chosen.stamps_ns)} show {chosen.covered_voxels} of {chosen.total_voxels} voxels"
    return f"{saved.frames} frames ({saved.ring_frames} recent, {saved.keyframes} keyframes){share}, {saved.folder}"
