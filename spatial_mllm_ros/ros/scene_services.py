"""The services `~/save_scene` and `~/load_scene`: a scene outlives the node's process.

The scene is read and replaced in the worker's thread, between two questions and two windows, so no request sees a part
of a change. Files are read and written in a thread of their own, so that questions are answered meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup

from spatial_mllm_ros.errors import SpatialMllmError, StorageError
from spatial_mllm_ros.ros.active import ActiveNode
from spatial_mllm_ros.ros.spinning import ThreadResult
from spatial_mllm_ros.ros.worker import SessionWorker, unexpected_error
from spatial_mllm_ros.scene.saved.save_load import SavedScene, read_scene, write_scene
from spatial_mllm_ros.srv import LoadScene, SaveScene

if TYPE_CHECKING:
    from rclpy.node import Node

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class SceneServices:
    """The two services of a node; one request at a time.

    Args:
        node: the rclpy node.
        active: what it works with at the moment; None while it is not active.
        on_loaded: called in the worker's thread when a loaded scene has replaced the present one.

    Attributes:
        busy: a request has not been answered yet.
    """

    def __init__(self, node: Node, active: Callable[[], ActiveNode | None], on_loaded: Callable[[], None]) -> None:
        self._node = node
        self._active = active
        self._on_loaded = on_loaded
        self._files = ThreadPoolExecutor(1, thread_name_prefix="scene-files")
        self.busy = False
        group = ReentrantCallbackGroup()
        self._services = (
            node.create_service(SaveScene, "~/save_scene", self._on_save, callback_group=group),
            node.create_service(LoadScene, "~/load_scene", self._on_load, callback_group=group),
        )

    def close(self) -> None:
        """Waits for a file that is being written; called at the end of the process."""
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
        response.epoch = 0 if active is None else active.session.scene.epoch
        return response

    async def _guarded(
        self, work: Callable[[ActiveNode], Awaitable[tuple[str, SavedScene]]]
    ) -> tuple[bool, str, SavedScene | None]:
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
            _log.exception("A scene was not saved or loaded: unexpected error; please report it with the log.")
            return False, unexpected_error(error), None
        finally:
            self.busy = False
        self._node.get_logger().info(message)
        return True, message, saved

    async def _save(self, active: ActiveNode, directory: str) -> tuple[str, SavedScene]:
        scene, parameters = active.session.scene, active.parameters
        content = await self._in_worker(active.worker, scene.content)
        saved = await self._in_files_thread(
            lambda: write_scene(
                content,
                scene.config,
                scene.encoder_name,
                directory,
                root=parameters.memory_root(),
                origin=parameters.scene_origin(),
            )
        )
        left_out = f" {saved.waiting} frames still waited for the encoder and are left out." if saved.waiting else ""
        return f"Saved {_in_words(saved)}, {saved.nbytes} bytes.{left_out}", saved

    async def _load(self, active: ActiveNode, directory: str) -> tuple[str, SavedScene]:
        scene, parameters = active.session.scene, active.parameters
        saved, content = await self._in_files_thread(
            lambda: read_scene(
                directory, root=parameters.memory_root(), origin=parameters.scene_origin(), config=scene.config
            )
        )
        reason = f"the scene saved in {saved.folder} takes its place"
        epoch = await self._in_worker(active.worker, lambda: scene.restore(content, reason))
        active.worker.submit_task(self._on_loaded)
        scene_frame = parameters.scene_origin().scene_frame
        if scene_frame and saved.posed_frames:
            assumed = f"New frames join it by their poses in '{scene_frame}', which must be the same frame as then."
        else:
            assumed = "New frames join it without poses, so the camera must see what it saw last when it was saved."
        return f"Loaded {_in_words(saved)}, as epoch {epoch}. {assumed}", saved

    async def _in_worker(self, worker: SessionWorker, work: Callable[[], _T]) -> _T:
        stopped = StorageError("busy", "The node was deactivated meanwhile; activate it and ask again.")
        return await self._awaited(lambda run, fail: worker.submit_task(run, refused=lambda: fail(stopped)), work)

    async def _in_files_thread(self, work: Callable[[], _T]) -> _T:
        return await self._awaited(lambda run, _fail: self._files.submit(run), work)

    async def _awaited(
        self, start: Callable[[Callable[[], None], Callable[[Exception], None]], object], work: Callable[[], _T]
    ) -> _T:
        """Has ``start`` run ``work`` in another thread and gives its result, or raises what it raised."""
        outcome: ThreadResult[Callable[[], _T]] = ThreadResult(self._node.executor)

        def fail(error: Exception) -> None:
            def raise_error() -> _T:
                raise error

            outcome.set(raise_error)

        def run() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 (it is raised again where it is awaited)
                fail(error)
            else:
                outcome.set(lambda: result)

        start(run, fail)
        return (await outcome.get())()


def _in_words(saved: SavedScene) -> str:
    chosen = saved.selection
    shown = f", of which {len(chosen.stamps_ns)} show {chosen.covered_voxels} of {chosen.total_voxels} voxels"
    return f"{saved.frames} frames ({saved.ring_frames} recent, {saved.keyframes} keyframes){shown}, {saved.folder}"
