"""Poses over time from a recording: interpolated between samples, chained from frame to frame."""

from __future__ import annotations

import bisect

import numpy as np

from spatial_mllm_ros.errors import FrameRejectedError
from spatial_mllm_ros.frames.stamp_index import nearest_stamp
from spatial_mllm_ros.geometry.poses import matrix_from_quaternion

#: Poses are interpolated across gaps up to this length; in a longer gap the pose was lost.
MAX_GAP_NS = 500_000_000


class PoseTrack:
    """The pose of one frame in another, at the stamps at which it was published."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._translations: list[np.ndarray] = []
        self._quaternions: list[np.ndarray] = []
        self._sorted = True

    def add(self, stamp_ns: int, translation: np.ndarray, quaternion_xyzw: np.ndarray) -> None:
        """Keeps one sample: translation float64 [3] in metres, unit quaternion x y z w float64 [4].

        A sample that is not finite, or whose quaternion is not of length 1 (within 1 %), is kept as NaN: poses at this
        sample and next to it are then NaN, so that no pose is interpolated across a sample that was wrong.
        """
        norm = float(np.linalg.norm(quaternion_xyzw))
        if not np.isfinite(translation).all() or not np.isfinite(norm) or abs(norm - 1.0) > 0.01:
            translation, quaternion_xyzw, norm = np.full(3, np.nan), np.array([0.0, 0.0, 0.0, 1.0]), 1.0
        self._sorted = self._sorted and (not self._stamps or stamp_ns >= self._stamps[-1])
        self._stamps.append(stamp_ns)
        self._translations.append(translation)
        self._quaternions.append(quaternion_xyzw / norm)

    def at(self, stamp_ns: int, tolerance_ns: int) -> np.ndarray | None:
        """The pose float64 [4, 4] at ``stamp_ns``; None where it is not known.

        Between two samples at most 0.5 s apart, the translation is interpolated linearly and the rotation along the
        shortest arc. Elsewhere the nearest sample holds, within ``tolerance_ns``.
        """
        self._sort()
        after = bisect.bisect_left(self._stamps, stamp_ns)
        if 0 < after < len(self._stamps) and self._stamps[after] != stamp_ns:
            start, end = self._stamps[after - 1], self._stamps[after]
            if end - start <= MAX_GAP_NS:
                share = (stamp_ns - start) / (end - start)
                translation = (1 - share) * self._translations[after - 1] + share * self._translations[after]
                return self._matrix(translation, slerp(self._quaternions[after - 1], self._quaternions[after], share))
        nearest = nearest_stamp(self._stamps, stamp_ns, tolerance_ns)
        return None if nearest is None else self._matrix(self._translations[nearest], self._quaternions[nearest])

    def any(self) -> np.ndarray:
        """The last pose, for a transform that never changes; the track must not be empty."""
        return self._matrix(self._translations[-1], self._quaternions[-1])

    def _sort(self) -> None:
        if not self._sorted:
            order = sorted(range(len(self._stamps)), key=self._stamps.__getitem__)
            self._stamps = [self._stamps[i] for i in order]
            self._translations = [self._translations[i] for i in order]
            self._quaternions = [self._quaternions[i] for i in order]
            self._sorted = True

    @staticmethod
    def _matrix(translation: np.ndarray, quaternion_xyzw: np.ndarray) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, :3] = matrix_from_quaternion(quaternion_xyzw)
        matrix[:3, 3] = translation
        return matrix


class TransformTree:
    """The tf of a recording: the parent of each frame, by fixed and by moving links (REP-105)."""

    def __init__(self) -> None:
        self._links: dict[str, tuple[str, bool, PoseTrack]] = {}

    def add(
        self, parent: str, child: str, stamp_ns: int, translation: np.ndarray, quaternion_xyzw: np.ndarray, fixed: bool
    ) -> None:
        """Keeps the pose of ``child`` in ``parent``; see PoseTrack.add. The last parent named for a child holds."""
        parent, child = parent.lstrip("/"), child.lstrip("/")
        link = self._links.get(child)
        if link is None or link[:2] != (parent, fixed):
            link = (parent, fixed, PoseTrack())
            self._links[child] = link
        link[2].add(stamp_ns, translation, quaternion_xyzw)

    def ancestors(self, frame: str) -> list[str]:
        """The chain of parents from ``frame`` to its root, without itself."""
        chain: list[str] = []
        frame = frame.lstrip("/")
        while frame in self._links and self._links[frame][0] not in chain:
            frame = self._links[frame][0]
            chain.append(frame)
        return chain

    def pose(self, fixed_frame: str, frame: str, stamp_ns: int, tolerance_ns: int) -> np.ndarray:
        """The pose float64 [4, 4] of ``frame`` in ``fixed_frame`` (one of its ancestors), metres.

        Raises:
            FrameRejectedError: cause ``no_pose``, naming the link that is missing or has no transform at that time.
        """
        pose = np.eye(4)
        child = frame.lstrip("/")
        while child != fixed_frame:
            if child not in self._links:
                raise FrameRejectedError(
                    "no_pose", f"tf does not lead from {frame!r} to {fixed_frame!r}: {child!r} has no parent."
                )
            parent, fixed, track = self._links[child]
            link = track.any() if fixed else track.at(stamp_ns, tolerance_ns)
            if link is None:
                raise FrameRejectedError(
                    "no_pose", f"tf has no transform from {child!r} to {parent!r} around {stamp_ns} ns."
                )
            pose = link @ pose
            child = parent
        return pose


def slerp(start_xyzw: np.ndarray, end_xyzw: np.ndarray, share: float) -> np.ndarray:
    """Unit quaternion at ``share`` 0..1 of the shortest arc between two (Shoemake 1985); float64 [4], x y z w."""
    cosine = float(start_xyzw @ end_xyzw)
    if cosine < 0:
        end_xyzw, cosine = -end_xyzw, -cosine
    if cosine > 0.9995:  # so short an arc is as good as its chord, and the sine below would vanish
        mixed = (1 - share) * start_xyzw + share * end_xyzw
    else:
        angle = np.arccos(cosine)
        mixed = (np.sin((1 - share) * angle) * start_xyzw + np.sin(share * angle) * end_xyzw) / np.sin(angle)
    return mixed / np.linalg.norm(mixed)
