"""TensorFlow's checkpoint format, a tensor bundle, read without TensorFlow.

Source: tensorflow/core/util/tensor_bundle and tensorflow/core/lib/io/table_format.txt. The index is a table of LevelDB
whose values are BundleEntryProto messages; the data file holds the tensors end to end.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOOTER_BYTES = 48
FLOAT32 = 1  # of tensorflow.DataType
NOT_COMPRESSED = 0
DTYPE, SHAPE, OFFSET, SIZE = 1, 2, 4, 5  # fields of BundleEntryProto
VARINT, DELIMITED, FIXED_BYTES = 0, 2, {1: 8, 5: 4}  # wire types of protocol buffers
DIMENSION, DIMENSION_SIZE = 2, 1  # fields of TensorShapeProto and of its Dim


def read_tensor_bundle(index: bytes, data: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the float32 tensors of a checkpoint in a single data file, by name.

    The bytes are trusted: compare their hashes before.
    """
    _, at = _varint(index, len(index) - FOOTER_BYTES)
    _, at = _varint(index, at)  # offset and size of the metaindex, which is not needed
    tensors = {}
    for _, handle in _block(index, *_handle(index[at:])):
        for key, value in _block(index, *_handle(handle)):
            entry = _message(value) if key else {}  # the entry without a name is the header of the bundle
            if entry.get(DTYPE) == [FLOAT32]:
                (offset,), (size,) = entry.get(OFFSET, [0]), entry[SIZE]
                values = np.frombuffer(data[offset : offset + size], "<f4")
                tensors[key.decode()] = values.reshape(_shape(entry[SHAPE][0])).astype(np.float32)
    return tensors


def _shape(message: bytes) -> list[int]:
    return [_message(each).get(DIMENSION_SIZE, [0])[0] for each in _message(message).get(DIMENSION, [])]


def _handle(content: bytes) -> tuple[int, int]:
    """Return offset and size of a block."""
    offset, at = _varint(content, 0)
    return offset, _varint(content, at)[0]


def _block(index: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block; a key repeats the first letters of the one before."""
    if index[offset + size] != NOT_COMPRESSED:
        raise ValueError("the index of the checkpoint is compressed")
    content, key, at = index[offset : offset + size], b"", 0
    (restarts,) = struct.unpack("<I", content[-4:])
    while at < len(content) - 4 * (restarts + 1):
        shared, at = _varint(content, at)
        added, at = _varint(content, at)
        length, at = _varint(content, at)
        key = key[:shared] + content[at : at + added]
        at += added
        yield key, content[at : at + length]
        at += length


def _message(content: bytes) -> Mapping[int, list[Any]]:
    """Return the values of each field of a protocol buffer message: numbers, or bytes."""
    values: dict[int, list[Any]] = {}
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, at = _varint(content, at)
            values.setdefault(field, []).append(value)
        else:
            length, at = _varint(content, at) if wire_type == DELIMITED else (FIXED_BYTES[wire_type], at)
            values.setdefault(field, []).append(content[at : at + length])
            at += length
    return values


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length, and the position after it."""
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
