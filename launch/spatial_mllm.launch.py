"""Starts the spatial node: `ros2 launch spatial_mllm_ros spatial_mllm.launch.py image:=/camera/image_raw ...`."""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from spatial_mllm_ros.ros.environment import PACKAGE, share_directory, shared_memory_variables

TOPICS = {
    "image": "colour image (sensor_msgs/Image); with input.compressed, <image>/compressed is read",
    "camera_info": "calibration of the colour image (sensor_msgs/CameraInfo)",
    "depth": "depth image registered to the colour image (sensor_msgs/Image), read with input.depth",
    "camera_pose": "pose of the camera (geometry_msgs/PoseStamped), read with input.pose_source: topic",
}


def spatial_node(context):
    """The node; the context is needed because only a checkpoint that was given may override the parameter file."""
    parameters = [LaunchConfiguration("params_file")]
    checkpoint = LaunchConfiguration("checkpoint").perform(context)
    if checkpoint:
        parameters.append({"checkpoint": checkpoint})
    remappings = [(topic, LaunchConfiguration(topic)) for topic in TOPICS]
    remappings.append(("image/compressed", [LaunchConfiguration("image"), "/compressed"]))
    return [
        Node(
            package=PACKAGE,
            executable="spatial_node",
            name="spatial_node",
            namespace=LaunchConfiguration("namespace"),
            parameters=parameters,
            remappings=remappings,
            output="screen",
        )
    ]


def generate_launch_description():
    """The arguments, the Fast DDS profile unless the user has chosen one, and the node."""
    params_file = share_directory() / "config" / "spatial_mllm.yaml"
    return LaunchDescription(
        [
            DeclareLaunchArgument("checkpoint", default_value="", description="model folder; empty: params_file's"),
            DeclareLaunchArgument("params_file", default_value=str(params_file), description="parameters of the node"),
            DeclareLaunchArgument("namespace", default_value="", description="namespace; empty gives /spatial_query"),
            *(DeclareLaunchArgument(topic, default_value=topic, description=what) for topic, what in TOPICS.items()),
            *(SetEnvironmentVariable(name, value) for name, value in shared_memory_variables(os.environ).items()),
            OpaqueFunction(function=spatial_node),
        ]
    )
