"""Intersections of rays with unit shapes, for lists of (part, pixel) pairs.

All rays have length 1 along the optical axis, so the ray parameter is the depth. The depth of a miss is infinite.
"""

from __future__ import annotations

import torch

NEAR_M = 0.04  #: what is nearer to the camera is not seen
_INF = float("inf")

Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def hit_box(o: Triple, d: Triple) -> torch.Tensor:
    """Depth at which rays o + t d (in the unit frame) enter the cube from -1 to 1 (slabs; Kay and Kajiya 1986)."""
    enter, leave = torch.full_like(d[0], -_INF), torch.full_like(d[0], _INF)
    for origin, ray in zip(o, d, strict=True):
        inverse = ray.reciprocal()
        middle = origin * inverse
        reach = inverse.abs()
        near, far = -middle - reach, reach - middle
        enter, leave = torch.maximum(enter, near), torch.minimum(leave, far)
    return torch.where((enter < leave) & (enter > NEAR_M), enter, _INF)


def hit_ellipsoid(o: Triple, d: Triple) -> torch.Tensor:
    """Depth at which rays enter the unit sphere."""
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1.0
    root = (b * b - a * c).sqrt()  # NaN for a miss, and NaN is never above the near plane
    enter = (-b - root) / a
    return torch.where(enter > NEAR_M, enter, _INF)


def hit_frustum(o: Triple, d: Triple, taper: torch.Tensor) -> torch.Tensor:
    """Depth at which rays enter the cut cone along z whose radius is ``frustum_radius`` at z."""
    slope = -taper / 2
    base = 1.0 - taper.abs() / 2
    r0, dr = base + slope * o[2], slope * d[2]
    a = d[0] * d[0] + d[1] * d[1] - dr * dr
    b = o[0] * d[0] + o[1] * d[1] - r0 * dr
    c = o[0] * o[0] + o[1] * o[1] - r0 * r0
    inverse = d[2].reciprocal()
    middle, reach = o[2] * inverse, inverse.abs()
    top, bottom = -middle - reach, reach - middle  # between these the ray is between the two end discs
    a = torch.where(a.abs() < 1e-9, 1e-9, a)
    root2 = b * b - a * c
    root = root2.clamp(min=0).sqrt()
    one, two = (-b - root) / a, (-b + root) / a
    low, high = torch.minimum(one, two), torch.maximum(one, two)
    crosses = root2 > 0
    # Across the cone: inside between the roots. Steeper than its side: inside before the first and after the second.
    across_in, across_out = torch.maximum(top, low), torch.minimum(bottom, high)
    first = (top < low) | ~crosses
    steep_in = torch.where(first, top, torch.maximum(top, high))
    steep_out = torch.where(first & crosses, torch.minimum(bottom, low), bottom)
    steep = a < 0
    enter, leave = torch.where(steep, steep_in, across_in), torch.where(steep, steep_out, across_out)
    hit = (enter < leave) & (enter > NEAR_M) & (crosses | steep)
    return torch.where(hit, enter, _INF)


def frustum_radius(taper: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Radius of the cut cone at height z in -1..1; the wider end has radius 1."""
    return 1.0 - taper.abs() / 2 - taper / 2 * z
