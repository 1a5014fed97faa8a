"""Spatial perception for robots: live frame selection by voxel coverage and spatial questions (Spatial-MLLM, Spa3R)."""

# The ROS build installs the generated msg/, srv/ and action/ modules under this same package name, in another
# folder. extend_path joins the two, so that a source checkout sees the generated interfaces and the reverse.
from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
