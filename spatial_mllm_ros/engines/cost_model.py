"""Computes what a call of VGGT costs from the sizes of the model: operations, and bytes of memory.

The operations are those of the matrix products and convolutions, twice the multiplications, as torch's own counter
counts them; the bytes are weights, plus the largest set of activations alive at once under fused attention, which is a
lower bound of what a runtime takes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from spatial_mllm_ros.engines.profile import EngineProfile, Precision
from spatial_mllm_ros.models.vggt import VggtConfig, VggtOutput

#: Share of a device's memory for the spatial encoder; the rest is for the language model, ROS and cameras.
SHARE_OF_MEMORY = 0.6
_BYTES_OF = {Precision.FP32: 4, Precision.FP16: 2, Precision.BF16: 2}


@dataclass(frozen=True)
class Device:
    """A machine to plan for.

    Attributes:
        memory_gib: that GPU and CPU share, as on every Jetson.
        effective_tflops: assumed for half-precision products of these shapes, not the data sheet's peak.
        bandwidth_gb_s: of the memory, from the data sheet.
    """

    name: str
    memory_gib: float
    effective_tflops: float
    bandwidth_gb_s: float


#: Planning figures, none of them measured with this code: see docs/jetson.md.
DEVICES = (
    Device("Jetson Orin NX 16 GB", 16, 8, 102),
    Device("Jetson AGX Orin 64 GB", 64, 20, 205),
    Device("Jetson AGX Thor 128 GB", 128, 100, 273),
)


@dataclass(frozen=True)
class Cost:
    """What one call costs.

    Attributes:
        flop: operations.
        weight_bytes, activation_bytes, io_bytes: memory; ``io`` is input and outputs for that many frames.
    """

    flop: float
    weight_bytes: float
    activation_bytes: float
    io_bytes: float

    @property
    def memory_bytes(self) -> float:
        """The sum."""
        return self.weight_bytes + self.activation_bytes + self.io_bytes

    def planned_s(self, device: Device) -> float:
        """Seconds on ``device`` under its assumed figures: operations, or reading the weights, whichever is slower."""
        return max(self.flop / (device.effective_tflops * 1e12), self.weight_bytes / (device.bandwidth_gb_s * 1e9))


def block_flop(tokens: float, dim: int, mlp_ratio: int, *, attended: float | None = None) -> float:
    """One transformer block over ``tokens`` tokens, each attending to ``attended`` of them (all, if None)."""
    products = 2 * tokens * dim * dim * (4 + 2 * mlp_ratio)  # query, key, value, output, and both of the MLP
    attention = 4 * tokens * (tokens if attended is None else attended) * dim  # scores, and their mix of the values
    return products + attention


def vggt_cost(config: VggtConfig, profile: EngineProfile, frames: int) -> Cost:
    """One call of VGGT on ``frames`` frames of the profile's size, for the profile's outputs, in its precision."""
    grid = (profile.height_px // config.patch_size_px, profile.width_px // config.patch_size_px)
    patches, dim, ratio = grid[0] * grid[1], config.embed_dim, config.mlp_ratio
    per_frame = patches + config.patch_start
    flop = frames * 2.0 * patches * dim * 3 * config.patch_size_px**2
    flop += config.dino_depth * frames * block_flop(per_frame, dim, ratio)
    depth = _layers_run(config, profile.outputs)
    flop += depth * frames * block_flop(per_frame, dim, ratio)
    flop += depth * block_flop(frames * per_frame, dim, ratio)
    if VggtOutput.POSE in profile.outputs:
        steps = config.camera_iterations * config.camera_trunk_depth
        flop += steps * block_flop(frames, 2 * dim, ratio)
    dense_heads = len({VggtOutput.DEPTH, VggtOutput.POINTS} & set(profile.outputs))
    flop += dense_heads * frames * _dense_head_flop(config, grid)

    size = _BYTES_OF[profile.precision]
    weights = size * _aggregator_weights(config) + 4.0 * _head_weights(config, profile.outputs)
    tokens = frames * per_frame
    # residual and its copy in float32; query, key, value, mixed and the MLP's hidden rows in the products' precision
    activations = tokens * dim * (8.0 + size * (4 + ratio))
    kept = len(set(config.dpt_layers)) if dense_heads else 1
    activations += kept * tokens * 2 * dim * 4.0
    if dense_heads:
        pixels = frames * profile.width_px * profile.height_px
        activations += pixels * 4.0 * (config.dpt_features // 2 + 32)  # the head's last maps, at full size
    return Cost(flop, weights, activations, _io_bytes(config, profile, frames))


def budget_table(config: VggtConfig, profiles: Collection[EngineProfile], frame_counts: Collection[int]) -> str:
    """Markdown: operations, memory, and planned seconds per device, for every profile and number of frames.

    Every figure is computed, none measured.
    """
    head = ["profile", "frames", "TFLOP", "weights GiB", "activations GiB", "total GiB"]
    head += [f"s on {device.name}, planned" for device in DEVICES]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for profile in profiles:
        what = f"{profile.kind.value} {profile.width_px}x{profile.height_px} {profile.precision.value}"
        for frames in frame_counts:
            cost = vggt_cost(config, profile, frames)
            cells = [what, str(frames), f"{cost.flop / 1e12:.1f}"]
            cells += [
                f"{part / 2**30:.2f}"
                for part in (cost.weight_bytes, cost.activation_bytes + cost.io_bytes, cost.memory_bytes)
            ]
            for device in DEVICES:
                fits = cost.memory_bytes <= SHARE_OF_MEMORY * device.memory_gib * 2**30
                # no figure is assumed for products in float32, which do not use the same units
                planned = "-" if profile.precision is Precision.FP32 else f"{cost.planned_s(device):.2f}"
                cells.append(planned if fits else "does not fit")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _layers_run(config: VggtConfig, outputs: Collection[VggtOutput]) -> int:
    if {VggtOutput.POSE, VggtOutput.LAST_LAYER} & set(outputs):
        return config.depth
    return max(config.dpt_layers) + 1


def _dense_head_flop(config: VggtConfig, grid: tuple[int, int]) -> float:
    """Convolutions of one dense head, of one frame."""
    patches, dim, features = grid[0] * grid[1], 2 * config.embed_dim, config.dpt_features
    first, second, _third, fourth = config.dpt_channels
    cells = [16 * patches, 4 * patches, patches, -(-grid[0] // 2) * -(-grid[1] // 2)]  # of the four resized maps
    flop = 2.0 * patches * dim * sum(config.dpt_channels)
    flop += 2.0 * patches * (16 * first**2 + 4 * second**2) + 2.0 * 9 * cells[3] * fourth**2
    flop += sum(
        2.0 * 9 * count * channels * features for count, channels in zip(cells, config.dpt_channels, strict=True)
    )
    # refinement: coarsest first; each unit has two convolutions, all but the coarsest block have two units, and each
    # block projects after it has doubled (the finest map doubles as well)
    larger = [64 * patches, cells[0], cells[1], cells[2]]
    for level in (3, 2, 1, 0):
        flop += 2.0 * 9 * cells[level] * features**2 * (2 if level == 3 else 4)
        flop += 2.0 * larger[level] * features**2
    pixels = patches * config.patch_size_px**2
    flop += 2.0 * 9 * larger[0] * features * (features // 2)
    return flop + 2.0 * pixels * (9 * (features // 2) * 32 + 32 * 2)


def _aggregator_weights(config: VggtConfig) -> float:
    blocks = config.dino_depth + 2 * config.depth
    positions = (config.image_size_px // config.patch_size_px) ** 2
    patch_rows = 3 * config.patch_size_px**2 + positions
    return config.embed_dim**2 * (4 + 2 * config.mlp_ratio) * blocks + config.embed_dim * patch_rows


def _head_weights(config: VggtConfig, outputs: Collection[VggtOutput]) -> float:
    weights = 0.0
    wide, features = 2 * config.embed_dim, config.dpt_features
    if VggtOutput.POSE in outputs:
        weights += config.camera_trunk_depth * wide**2 * (4 + 2 * config.mlp_ratio) + 3.5 * wide**2
    for output in (VggtOutput.DEPTH, VggtOutput.POINTS):
        if output in outputs:
            first, second, _third, fourth = config.dpt_channels
            weights += wide * sum(config.dpt_channels) + 16 * first**2 + 4 * second**2 + 9 * fourth**2
            weights += 9 * features * sum(config.dpt_channels) + 14 * 9 * features**2 + 4 * features**2
            weights += 9 * features * (features // 2) + 9 * (features // 2) * 32
    return weights


def _io_bytes(config: VggtConfig, profile: EngineProfile, frames: int) -> float:
    pixels = profile.width_px * profile.height_px
    count = 3.0 * pixels
    per_output = {
        VggtOutput.POSE: 9,
        VggtOutput.DEPTH: 2 * pixels,
        VggtOutput.POINTS: 4 * pixels,
        VggtOutput.LAST_LAYER: (pixels // config.patch_size_px**2 + config.patch_start) * 2 * config.embed_dim,
    }
    return 4.0 * frames * (count + sum(per_output[output] for output in profile.outputs))
