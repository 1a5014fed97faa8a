"""Size and completeness of JPEG and PNG payloads, read from their headers before anything is decoded.

Decoders allocate as much as a header claims, and fill the missing part of a cut-off JPEG with grey. Therefore the size
and the completeness are checked first.
Sources: ITU-T T.81 (JPEG), annex B; ISO/IEC 15948 (PNG), clauses 5 and 11.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from spatial_mllm_ros.errors import FrameRejectedError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# start-of-frame markers: 0xC0-0xCF without DHT (C4), JPG (C8) and DAC (CC)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA
_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True)
class ImageHeader:
    """What a compressed image says about itself."""

    kind: str  #: "JPEG" or "PNG"
    height_px: int
    width_px: int
    channels: int  #: as stored: 1 grey or palette, 2 grey + alpha, 3 colour, 4 colour + alpha
    bits_per_channel: int


def read_png_header(payload: memoryview) -> ImageHeader:
    """Header of a complete PNG file.

    Raises:
        FrameRejectedError: cause ``payload``: damaged header, or no end chunk.
    """
    raw = bytes(payload[:26])
    if len(raw) < 26 or raw[:8] != _PNG_SIGNATURE or raw[12:16] != b"IHDR" or raw[25] not in _PNG_CHANNELS:
        raise FrameRejectedError("payload", "The PNG header is damaged or cut off.")
    if _PNG_END not in bytes(payload[-4096:]):
        raise FrameRejectedError("payload", f"The PNG payload of {len(payload)} bytes has no end chunk; it is cut off.")
    width_px, height_px = struct.unpack(">II", raw[16:24])
    return ImageHeader("PNG", height_px, width_px, _PNG_CHANNELS[raw[25]], raw[24])


def read_jpeg_header(payload: memoryview) -> ImageHeader:
    """Header of a complete JPEG file, found by walking its segments up to the first scan; an end marker must follow.

    Raises:
        FrameRejectedError: cause ``encoding`` (neither JPEG nor PNG) or ``payload`` (damaged or cut off).
    """
    if bytes(payload[:2]) != b"\xff\xd8":
        raise FrameRejectedError(
            "encoding", "The compressed payload is neither JPEG nor PNG; colour topics take these."
        )
    header: ImageHeader | None = None
    at = 2
    while at + 4 <= len(payload) and payload[at] == 0xFF:
        marker = payload[at + 1]
        if marker == 0xFF:  # fill byte before a marker
            at += 1
            continue
        length = (payload[at + 2] << 8) | payload[at + 3]
        if length < 2:
            break
        if marker in _JPEG_FRAMES and at + 10 <= len(payload):
            bits, height_px, width_px, channels = struct.unpack(">BHHB", bytes(payload[at + 4 : at + 10]))
            header = ImageHeader("JPEG", height_px, width_px, channels, bits)
        at += 2 + length
        if marker == _JPEG_SCAN:
            break
    if header is None or at >= len(payload):
        raise FrameRejectedError("payload", "The JPEG header is damaged or cut off before the image data.")
    # a thumbnail in the header has an end marker of its own, so only what follows the scan header counts
    if bytes(payload[at:]).rfind(_JPEG_END) < 0:
        raise FrameRejectedError(
            "payload", f"The JPEG payload of {len(payload)} bytes has no end marker; it is cut off."
        )
    return header
