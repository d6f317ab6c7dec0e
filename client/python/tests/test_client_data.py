"""What the client makes of arrays, prompts and chunks, without a server."""

import numpy as np
import pytest

import valuescope as vs
from valuescope import v1
from valuescope.crc32c import crc32c


def test_crc32c_equals_the_published_check_values():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_crc32c_of_long_data_equals_the_byte_loop():
    data = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    assert crc32c(data) == crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int32", "int64"])
def test_arrays_survive_the_round_trip(dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    back = vs.to_numpy(vs.from_numpy(array))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_a_transposed_array_is_sent_row_major():
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(vs.to_numpy(vs.from_numpy(array)), array)


def test_bfloat16_becomes_float32_without_loss():
    tensor = v1.Tensor(dtype=v1.DATA_TYPE_BFLOAT16, shape=[2], data=b"\x80\x3f\x00\xc0")
    np.testing.assert_array_equal(vs.to_numpy(tensor), [1.0, -2.0])


def test_an_empty_system_message_is_not_the_same_as_none():
    assert vs.chat("hi") == [{"role": "user", "content": "hi"}]
    assert vs.chat("hi", system="")[0] == {"role": "system", "content": ""}


def test_a_wrong_scope_is_refused_with_the_allowed_ones():
    with pytest.raises(ValueError, match="from_last_prompt"):
        vs.Steer("vectors/x", tokens="everywhere").to_intervention()


def test_chunks_of_a_tap_become_one_array():
    def chunk(layers, positions, value):
        shape = (len(layers), len(positions), 2)
        return v1.CaptureChunk(
            tap_index=1,
            layers=layers,
            positions=positions,
            tensor=vs.from_numpy(np.full(shape, value, np.float32)),
        )

    arrays = vs.Activations(
        [chunk([0, 1], [0, 1], 1), chunk([0, 1], [2], 2), chunk([2], [0, 1, 2], 3)]
    )
    assert arrays[1].shape == (3, 3, 2)
    assert arrays[1][1, 2, 0] == 2 and arrays[1][2, 0, 0] == 3
    assert arrays.layers == {1: [0, 1, 2]} and arrays.positions == {1: [0, 1, 2]}
    assert repr(arrays) == "Activations({1: float32[3, 3, 2]})"


def test_a_data_set_line_keeps_the_empty_system_message_and_the_label():
    line = vs.to_json_lines([vs.labelled(vs.chat("q", system=""), [1, 2], False, "q1")])
    assert b'"role": "system"' in line
    assert b'"expresses": false' in line
    assert line.count(b"\n") == 1
