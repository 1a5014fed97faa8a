"""Imperfections of a real camera: changing exposure, motion blur, noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from spatial_mllm_ros.errors import ConfigurationError


@dataclass(frozen=True)
class SensorModel:
    """Imperfections of a camera; the defaults are a perfect camera.

    Attributes:
        exposure_stops: spread (standard deviation) of the exposure, in stops: one half for the whole clip, one half
            from frame to frame.
        white_balance: spread of the red and the blue gain, per clip.
        noise: standard deviation of additive noise at mid grey, of full scale.
        blur_samples: images that are averaged over the exposure time; rendering takes as many times longer. 0 or 1: no
            motion blur.
        shutter_s: exposure time.
    """

    exposure_stops: float = 0.0
    white_balance: float = 0.0
    noise: float = 0.0
    blur_samples: int = 0
    shutter_s: float = 0.02

    def __post_init__(self) -> None:
        for name in ("exposure_stops", "white_balance", "noise", "blur_samples", "shutter_s"):
            if not 0 <= getattr(self, name) < 1000:
                raise ConfigurationError(f"SensorModel.{name} is {getattr(self, name)}; it must be 0 or more.")


#: A cheap camera on a robot.
REALISTIC = SensorModel(exposure_stops=0.35, white_balance=0.05, noise=0.012, blur_samples=4, shutter_s=0.012)
#: Cameras by name. With blur, rendering takes four times as long, so training uses no blur.
CAMERAS = {"perfect": SensorModel(), "noisy": replace(REALISTIC, blur_samples=0), "realistic": REALISTIC}


def expose(rgb: torch.Tensor, sensor: SensorModel, generator: torch.Generator) -> torch.Tensor:
    """The image that the sensor makes of the colours of one clip.

    Args:
        rgb: float32 [F, H, W, 3], 0..1 and above.
        generator: on the device of ``rgb``.

    Returns:
        uint8 [F, H, W, 3].
    """
    device = rgb.device
    if sensor.exposure_stops:
        clip = torch.randn((), generator=generator, device=device)
        frame = torch.randn(len(rgb), generator=generator, device=device)
        stops = (clip + frame) * (sensor.exposure_stops * 0.7071)
        rgb = rgb * torch.exp2(stops)[:, None, None, None]
    if sensor.white_balance:
        gain = torch.randn(3, generator=generator, device=device) * sensor.white_balance
        gain[1] = 0.0
        rgb = rgb * (1.0 + gain)
    if sensor.noise:
        noise = torch.randn(rgb.shape, generator=generator, device=device) * sensor.noise
        rgb = rgb + noise * (0.4 + 1.2 * rgb.clamp(0, 1)).sqrt()
    return (rgb * 255.0 + 0.5).clamp(0, 255).to(torch.uint8)
