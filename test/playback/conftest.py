"""The same private ROS domain and processes as for the node's own tests."""

from ..ros.conftest import ros_client, start_node, start_process  # noqa: F401 (fixtures)
