# Jetson Thor with JetPack 7: Ubuntu 24.04, Python 3.12, ROS 2 Jazzy, TensorRT 10.13 from the base image.
# Build on the Jetson, with a torch that was built for its GPU (an address of a wheel, or what pip takes):
#     docker build -f docker/jetpack7.Dockerfile --build-arg TORCH=/path/or/address/of/torch.whl -t spatial_mllm_ros:jetpack7 .
# Run, with the engines in the user's cache folder:
#     docker run --runtime nvidia --network host --ipc host \
#       -v ~/.cache/spatial_mllm_ros:/root/.cache/spatial_mllm_ros -it spatial_mllm_ros:jetpack7
# Written from NVIDIA's and ROS's documents; neither built nor run on a device so far.
ARG BASE=nvcr.io/nvidia/tensorrt:25.08-py3
FROM ${BASE}

ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl g++ cmake git python3-dev python3-pip \
 && curl -fsSL https://raw.githubusercontent.com/ros/rosdistro/master/ros.key -o /usr/share/keyrings/ros-archive-keyring.gpg \
 && echo "deb [signed-by=/usr/share/keyrings/ros-archive-keyring.gpg] http://packages.ros.org/ros2/ubuntu noble main" \
      > /etc/apt/sources.list.d/ros2.list \
 && apt-get update \
 && apt-get install -y --no-install-recommends \
      ros-jazzy-ros-base ros-jazzy-visualization-msgs ros-jazzy-tf2-ros-py python3-colcon-common-extensions \
 && rm -rf /var/lib/apt/lists/*

# The wheels of the Python index for aarch64 have no code for Thor's SM 11.0: no default on purpose.
ARG TORCH
RUN test -n "${TORCH}" || { echo "--build-arg TORCH is missing: see docs/jetson.md" >&2; exit 1; }
RUN python3 -m pip install --no-cache-dir --break-system-packages "${TORCH}" \
 && python3 -m pip install --no-cache-dir --break-system-packages transformers tokenizers safetensors huggingface_hub \
      opencv-python-headless pillow pyyaml

COPY . /ros/src/spatial_mllm_ros
WORKDIR /ros
RUN source /opt/ros/jazzy/setup.bash && colcon build --packages-select spatial_mllm_ros

ENTRYPOINT ["/bin/bash", "-c", "source /opt/ros/jazzy/setup.bash && source /ros/install/setup.bash && exec \"$@\"", "--"]
CMD ["ros2", "launch", "spatial_mllm_ros", "spatial_mllm.launch.py"]
