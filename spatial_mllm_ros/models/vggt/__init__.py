"""VGGT (Visual Geometry Grounded Transformer), written for inference on a robot and for export."""

from spatial_mllm_ros.models.vggt.aggregator import Aggregator, TrunkPass
from spatial_mllm_ros.models.vggt.config import VggtConfig
from spatial_mllm_ros.models.vggt.model import VGGT, VggtOutput, VggtPrediction

__all__ = ["VGGT", "Aggregator", "TrunkPass", "VggtConfig", "VggtOutput", "VggtPrediction"]
