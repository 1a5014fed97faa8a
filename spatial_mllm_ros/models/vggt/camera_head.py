"""The camera head: pose and field of view of each frame from its camera token, refined step by step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spatial_mllm_ros.models.vggt.config import VggtConfig
from spatial_mllm_ros.models.vggt.layers import Block, Mlp

POSE_ENCODING_DIM = 9  #: translation (3), quaternion x y z w (4), vertical and horizontal field of view (2)
NORM_EPS = 1e-5


class CameraHead(nn.Module):
    """Iterative refinement of the pose encoding (VGGT, section 3.3), each step conditioned on the one before."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        dim = 2 * config.embed_dim
        self.iterations = config.camera_iterations
        self.token_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_ENCODING_DIM))
        self.embed_pose = nn.Linear(POSE_ENCODING_DIM, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.trunk = nn.ModuleList(
            Block(dim, config.camera_heads, mlp_ratio=config.mlp_ratio, norm_eps=NORM_EPS, layer_scale=0.01)
            for _ in range(config.camera_trunk_depth)
        )
        self.trunk_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.pose_branch = Mlp(dim, dim // 2, POSE_ENCODING_DIM)

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Pose encodings after each refinement step; the last one is the result.

        Args:
            tokens: last aggregator layer, [B, S, P, 2 D], in the dtype of this head's weights.

        Returns:
            one [B, S, 9] per step: translation and quaternion (x, y, z, w; not normalised) camera-from-world in OpenCV
            axes without metric scale, then vertical and horizontal field of view in radians, >= 0 (0 where the head
            sees no usable angle).
        """
        camera = self.token_norm(tokens[:, :, 0])
        plain = F.layer_norm(camera, camera.shape[-1:], eps=1e-6)  # modulated below, so without weights of its own
        pose = self.empty_pose_tokens.expand(camera.shape[0], camera.shape[1], -1)
        refined: list[Tensor] = []
        for step in range(self.iterations):
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(pose)).chunk(3, dim=-1)
            state = camera + gate * (plain * (1 + scale) + shift)
            for block in self.trunk:
                state = block(state)
            change = self.pose_branch(self.trunk_norm(state))
            pose = change if step == 0 else pose + change
            refined.append(torch.cat((pose[..., :7], F.relu(pose[..., 7:])), dim=-1))
            pose = pose.detach()  # a step learns from its own change only
        return tuple(refined)
