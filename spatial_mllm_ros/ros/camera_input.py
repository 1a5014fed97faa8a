"""The subscriptions of a configured node to its camera."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, TypeVar

from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from spatial_mllm_ros.ros.conversions import nanoseconds
from spatial_mllm_ros.ros.message_matching import FrameAssembler
from spatial_mllm_ros.ros.parameters import NodeParameters
from spatial_mllm_ros.ros.poses import open_pose_source
from spatial_mllm_ros.scene.scene import Scene

if TYPE_CHECKING:
    from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo
    from rclpy.node import Node
    from rclpy.subscription import Subscription

_Message = TypeVar("_Message")
_OVERRIDABLE = (QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)  # by the parameters qos_overrides./TOPIC.subscription.*
_POSES_QOS = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)


class CameraInput:
    """Subscribes to the topics that the parameters name, and has their messages matched.

    Args:
        node: the rclpy node.
        parameters: say which topics there are.
        scene: gets the frames.
        on_color: called with every colour image; it decides whether ``assembler`` gets the image.
        on_frame: called after a frame was added to the scene.

    Attributes:
        assembler: makes the frames.
        incompatible_topics: resolved names of topics with a publisher whose QoS does not fit.

    Raises:
        ConfigurationError: the source of the poses needs what is not installed.
    """

    def __init__(
        self,
        node: Node,
        parameters: NodeParameters,
        scene: Scene,
        *,
        on_color: Callable[[Image | CompressedImage], None],
        on_frame: Callable[[], None],
    ) -> None:
        self._node = node
        self._subscriptions: list[Subscription[object]] = []
        self.incompatible_topics: set[str] = set()
        source = parameters.input
        slop_ns = nanoseconds(source.match_slop_s)
        self.assembler = FrameAssembler(
            scene,
            needs_depth=source.depth,
            poses=open_pose_source(node, source.pose_source, scene_frame=parameters.scene_frame, slop_ns=slop_ns),
            slop_ns=slop_ns,
            wait_ns=nanoseconds(source.match_wait_s),
            on_frame=on_frame,
        )
        reliable = source.reliability == "reliable"
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT)
        self._group = MutuallyExclusiveCallbackGroup()
        self._subscribe(CameraInfo, "camera_info", self.assembler.on_camera_info, qos)
        if source.depth:
            self._subscribe(Image, "depth", self.assembler.on_depth, qos)
        if source.pose_source == "topic":
            self._subscribe(PoseStamped, "camera_pose", self.assembler.on_pose, _POSES_QOS)
        # Last: a publisher discovers subscriptions in this order, so one that sees the last of them sees them all.
        if source.compressed:
            self._subscribe(CompressedImage, "image/compressed", on_color, qos)
        else:
            self._subscribe(Image, "image", on_color, qos)

    def close(self) -> None:
        """Ends the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _subscribe(
        self, kind: type[_Message], topic: str, callback: Callable[[_Message], None], qos: QoSProfile
    ) -> None:
        events = SubscriptionEventCallbacks(incompatible_qos=lambda event: self._on_incompatible_qos(topic, event))
        subscription = self._node.create_subscription(
            kind,
            topic,
            callback,
            copy(qos),  # an override changes the profile in place
            callback_group=self._group,
            event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
        )
        self._subscriptions.append(subscription)

    def _on_incompatible_qos(self, topic: str, event: QoSRequestedIncompatibleQoSInfo) -> None:
        name = self._node.resolve_topic_name(topic)
        self.incompatible_topics.add(name)
        self._node.get_logger().error(
            f"A publisher on {name} offers a QoS that this node does not accept (policy {event.last_policy_kind}); "
            "set input.reliability to 'best_effort', or change the publisher.",
            throttle_duration_sec=10.0,
        )
