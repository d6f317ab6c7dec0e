"""CRC-32C (Castagnoli) of artifact chunks; vectorised by numpy because a byte loop in Python takes a second per MiB."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

_REVERSED_POLYNOMIAL = 0x82F63B78


@functools.cache
def _byte_table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ _REVERSED_POLYNOMIAL, table >> 1).astype(
            np.uint32
        )
    return table


@functools.cache
def _shift_tables(num_zero_bytes: int) -> npt.NDArray[np.uint32]:
    """[4, 256]: what each byte of a CRC becomes after `num_zero_bytes` more zero bytes. The map is linear over GF(2)."""
    basis = [1 << bit for bit in range(32)]
    table = _byte_table()
    crcs = np.array(basis, np.uint32)
    for _ in range(num_zero_bytes):
        crcs = (crcs >> 8) ^ table[crcs & 0xFF]
    tables = np.zeros((4, 256), np.uint32)
    for byte in range(4):
        for bit in range(8):
            mask = (np.arange(256) >> bit) & 1
            tables[byte] ^= np.where(mask, crcs[8 * byte + bit], 0).astype(np.uint32)
    return tables


def _shift(crcs: Any, num_zero_bytes: int) -> Any:
    tables = _shift_tables(num_zero_bytes)
    return (
        tables[0][crcs & 0xFF]
        ^ tables[1][(crcs >> 8) & 0xFF]
        ^ tables[2][(crcs >> 16) & 0xFF]
        ^ tables[3][crcs >> 24]
    )


def crc32c(data: bytes) -> int:
    """CRC-32C of `data`: lanes of 256 bytes advance side by side, then their CRCs are folded together."""
    lane = 256
    table = _byte_table()
    num_lanes = len(data) // lane
    crc = np.uint32(0xFFFFFFFF)
    if num_lanes:
        lanes = np.frombuffer(data, np.uint8, num_lanes * lane).reshape(num_lanes, lane)
        crcs = np.zeros(num_lanes, np.uint32)
        for column in range(lane):
            crcs = (crcs >> 8) ^ table[(crcs ^ lanes[:, column]) & 0xFF]
        for lane_crc in crcs:
            crc = _shift(crc, lane) ^ lane_crc
    for byte in data[num_lanes * lane :]:
        crc = (crc >> np.uint32(8)) ^ table[(int(crc) ^ byte) & 0xFF]
    return int(crc) ^ 0xFFFFFFFF
