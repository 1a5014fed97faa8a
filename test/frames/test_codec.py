import array

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spatial_mllm_ros.errors import FrameRejectedError
from spatial_mllm_ros.frames import codec
from spatial_mllm_ros.frames.codec import decode_color, decode_compressed_color, decode_depth

H, W = 5, 7
RGB = np.random.default_rng(3).integers(0, 256, (H, W, 3), dtype=np.uint8)


def stored(encoding: str) -> np.ndarray:
    alpha = np.full((H, W, 1), 17, np.uint8)
    return {
        "rgb8": RGB,
        "bgr8": RGB[:, :, ::-1],
        "rgba8": np.dstack([RGB, alpha]),
        "bgra8": np.dstack([RGB[:, :, ::-1], alpha]),
        "mono8": RGB[:, :, :1],
    }[encoding]


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("container", [bytes, lambda b: array.array("B", b), lambda b: np.frombuffer(b, np.uint8)])
@pytest.mark.parametrize("encoding", codec.COLOR_ENCODINGS)
def test_every_colour_encoding_becomes_rgb_with_row_padding_left_out(encoding, container, padding):
    rows = stored(encoding).reshape(H, -1)
    payload = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    image = decode_color(encoding, H, W, payload.shape[1], 0, container(payload.tobytes()))
    expected = np.repeat(RGB[:, :, :1], 3, axis=2) if encoding == "mono8" else RGB
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("encoding", codec.COLOR_ENCODINGS)
def test_decoding_writes_into_the_given_buffer(encoding):
    out = np.zeros((H, W, 3), np.uint8)
    pixels = stored(encoding)
    image = decode_color(encoding, H, W, W * pixels.shape[2], 0, pixels.tobytes(), out)
    assert image is out
    np.testing.assert_array_equal(out[2, 3, 0], pixels[2, 3, 2 if encoding.startswith("bgr") else 0])


@pytest.mark.parametrize("out", [np.zeros((W, H, 3), np.uint8), np.zeros((H, W, 3), np.float32)])
def test_a_buffer_of_another_size_or_type_is_refused(out):
    with pytest.raises(FrameRejectedError, match="buffer") as caught:
        decode_color("rgb8", H, W, W * 3, 0, RGB.tobytes(), out)
    assert caught.value.cause == "size"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"encoding": "yuv422"}, "encoding"),
        ({"encoding": "16UC1"}, "encoding"),
        ({"encoding": ""}, "encoding"),
        ({"encoding": None}, "encoding"),
        ({"height": 0}, "size"),
        ({"width": 0}, "size"),
        ({"width": 20_000, "step": 60_000}, "size"),
        ({"height": 16_000, "width": 16_000, "step": 48_000}, "size"),
        ({"height": 4_294_967_295}, "size"),
        ({"step": W * 3 - 1}, "step"),
        ({"step": 0}, "step"),
        ({"step": 4_294_967_295}, "step"),
        ({"data": RGB.tobytes()[:-1]}, "payload"),
        ({"data": RGB.tobytes() + b"x"}, "payload"),
        ({"data": b""}, "payload"),
        ({"data": None}, "payload"),
    ],
)
def test_a_bad_image_is_refused_by_cause_with_a_sentence(change, cause):
    message = {"encoding": "rgb8", "height": H, "width": W, "step": W * 3, "is_bigendian": 0, "data": RGB.tobytes()}
    with pytest.raises(FrameRejectedError) as caught:
        decode_color(**{**message, **change})
    assert caught.value.cause == cause
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("endian", ["<", ">"])
def test_millimetre_depth_becomes_metres_with_nan_for_none(endian):
    depth_mm = np.array([[0, 1, 1234], [65535, 65534, 500]], np.uint16)
    payload = np.pad(depth_mm.astype(endian + "u2").view(np.uint8), ((0, 0), (0, 2))).tobytes()
    metres = decode_depth("16UC1", 2, 3, 8, int(endian == ">"), payload)
    expected = np.array([[np.nan, 0.001, 1.234], [np.nan, 65.534, 0.5]], np.float32)
    assert metres.dtype == np.float32
    np.testing.assert_array_equal(metres, expected)


@pytest.mark.parametrize("endian", ["<", ">"])
def test_float_depth_keeps_only_finite_positive_metres(endian):
    depth = np.array([[0.0, -1.0, 2.5], [np.nan, np.inf, -np.inf]], np.float32)
    out = np.zeros((2, 3), np.float32)
    metres = decode_depth("32FC1", 2, 3, 12, int(endian == ">"), depth.astype(endian + "f4").tobytes(), out)
    assert metres is out
    np.testing.assert_array_equal(metres, np.array([[np.nan, np.nan, 2.5], [np.nan] * 3], np.float32))


def test_depth_of_an_encoding_without_a_unit_is_refused():
    with pytest.raises(FrameRejectedError, match="16UC1, 32FC1"):
        decode_depth("mono8", 2, 3, 3, 0, bytes(6))


SMOOTH = cv2.resize(np.random.default_rng(5).integers(0, 256, (3, 4, 3), dtype=np.uint8), (40, 30))


def encoded(extension: str, pixels: np.ndarray = SMOOTH) -> bytes:
    ok, data = cv2.imencode(extension, pixels[:, :, ::-1] if pixels.ndim == 3 and pixels.shape[2] == 3 else pixels)
    assert ok
    return data.tobytes()


@pytest.mark.parametrize("image_format", ["png", "rgb8; png compressed bgr8", "PNG"])
def test_png_is_decoded_exactly_into_the_given_buffer(image_format):
    out = np.zeros(SMOOTH.shape, np.uint8)
    assert decode_compressed_color(image_format, encoded(".png"), out) is out
    np.testing.assert_array_equal(out, SMOOTH)


def test_jpeg_is_decoded_in_rgb_order():
    image = decode_compressed_color("jpeg", array.array("B", encoded(".jpg")))
    assert np.abs(image.astype(int) - SMOOTH).mean() < 4


def test_a_png_labelled_jpeg_is_decoded_by_its_payload():
    np.testing.assert_array_equal(decode_compressed_color("jpeg", encoded(".png")), SMOOTH)


def test_the_exif_orientation_is_ignored():
    exif = (
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
    )
    plain = encoded(".jpg")
    turned = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    np.testing.assert_array_equal(decode_compressed_color("jpeg", turned), decode_compressed_color("jpeg", plain))


def test_grey_is_repeated_and_alpha_dropped():
    grey = decode_compressed_color("png", encoded(".png", SMOOTH[:, :, 0]))
    np.testing.assert_array_equal(grey, np.repeat(SMOOTH[:, :, :1], 3, axis=2))
    bgra = np.dstack([SMOOTH[:, :, ::-1], np.zeros(SMOOTH.shape[:2], np.uint8)])
    np.testing.assert_array_equal(decode_compressed_color("png", encoded(".png", bgra)), SMOOTH)


def test_a_sixteen_bit_png_is_refused_as_probably_depth():
    with pytest.raises(FrameRejectedError, match="16 bits") as caught:
        decode_compressed_color("png", encoded(".png", np.ones((4, 6), np.uint16)))
    assert caught.value.cause == "encoding"


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_a_payload_cut_anywhere_is_refused_and_never_half_decoded(extension):
    whole = encoded(extension)
    for length in range(len(whole) - (1 if extension == ".jpg" else 12)):
        with pytest.raises(FrameRejectedError):
            decode_compressed_color("jpeg", whole[:length])


def test_a_cut_jpeg_with_a_thumbnail_in_its_header_is_refused():
    thumbnail = b"Exif\x00\x00" + encoded(".jpg", SMOOTH[:8, :8])
    whole = encoded(".jpg")
    with_thumbnail = whole[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + whole[2:]
    assert decode_compressed_color("jpeg", with_thumbnail).shape == SMOOTH.shape
    with pytest.raises(FrameRejectedError, match="cut off"):
        decode_compressed_color("jpeg", with_thumbnail[:-40])


def test_a_png_that_claims_a_huge_size_is_refused_before_decoding():
    bomb = bytearray(encoded(".png"))
    bomb[16:20] = (60_000).to_bytes(4, "big")
    with pytest.raises(FrameRejectedError) as caught:
        decode_compressed_color("png", bytes(bomb))
    assert caught.value.cause == "size"


@pytest.mark.parametrize("image_format", ["16UC1; compressedDepth png", "webp", "", None])
def test_other_formats_are_refused_by_name(image_format):
    with pytest.raises(FrameRejectedError) as caught:
        decode_compressed_color(image_format, encoded(".png"))
    assert caught.value.cause == "encoding"


def outcome(decode):
    try:
        return decode(), None
    except FrameRejectedError as err:
        return None, err.cause


whole_number = st.one_of(st.integers(-2, 12), st.sampled_from([2**31, 2**32 - 1, 16_384, True, None, 3.5, "7"]))
payloads = st.one_of(
    st.binary(max_size=200), st.sampled_from([None, b"", array.array("B", [1, 2, 3]), np.zeros((4, 4))[:, ::2], 7])
)
encodings = st.one_of(st.sampled_from([*codec.COLOR_ENCODINGS, *codec.DEPTH_ENCODINGS, "yuv422", None, 5]), st.text())


@settings(max_examples=8000, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    encoding=encodings,
    height=whole_number,
    width=whole_number,
    step=whole_number,
    big=st.integers(0, 255),
    data=payloads,
    fitting=st.booleans(),
    depth=st.booleans(),
)
def test_fuzzed_raw_images_decode_or_are_refused_and_nothing_else(
    encoding, height, width, step, big, data, fitting, depth
):
    if fitting and isinstance(data, bytes) and type(height) is int and type(step) is int and 0 < height * step < 500:
        data = bytes(height * step)
    decode = decode_depth if depth else decode_color
    image, cause = outcome(lambda: decode(encoding, height, width, step, big, data))
    assert image.shape[:2] == (height, width) if cause is None else cause in {"encoding", "size", "step", "payload"}


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    image_format=st.one_of(st.sampled_from(["jpeg", "png", "bgr8; jpeg compressed bgr8", None]), st.text(max_size=8)),
    extension=st.sampled_from([".jpg", ".png"]),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 2500),
)
def test_fuzzed_compressed_images_decode_or_are_refused_and_nothing_else(image_format, extension, edits, cut):
    payload = bytearray(encoded(extension))
    for position, value in edits:
        payload[position % len(payload)] = value
    image, cause = outcome(lambda: decode_compressed_color(image_format, bytes(payload[:cut])))
    assert image.ndim == 3 if cause is None else cause in {"encoding", "size", "payload"}
