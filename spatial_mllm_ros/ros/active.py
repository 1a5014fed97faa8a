"""What an active node works with; shared by everything in the node that answers requests."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_mllm_ros.answering.session import SpatialSession
from spatial_mllm_ros.ros.parameters import NodeParameters
from spatial_mllm_ros.ros.worker import SessionWorker


@dataclass(frozen=True, eq=False)
class ActiveNode:
    """The parameters that the node was configured with, its session, and the thread that runs the session."""

    parameters: NodeParameters
    session: SpatialSession
    worker: SessionWorker
