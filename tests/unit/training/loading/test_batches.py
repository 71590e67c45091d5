import numpy as np
import pytest
import torch

from store.dataset.shards import decode_db, encode_db
from tests.support.held_frames import HeldFrames, locations_of
from training.loading.batches import BatchMemory, read_ahead, read_batch, read_crops, to_db
from training.loading.crops import Crops, Tracks


def held(dtype=np.float32):
    mels = {
        "a": np.arange(20, dtype=dtype)[:, None].repeat(2, 1),
        "b": np.arange(4, dtype=dtype)[:, None].repeat(2, 1),
    }
    return HeldFrames(mels), Tracks(("a", "b"), locations_of([20, 4], ["a", "b"]), np.eye(2, dtype=np.int8))


def crops(*pairs):
    track_N, start_N = np.array(pairs, np.int32).T
    return Crops(track_N, start_N)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_a_batch_has_the_stored_type_and_its_crops_start_where_the_plan_says(dtype):
    source, tracks = held(dtype)
    batch = read_batch(source, tracks, crops((0, 7), (1, 0), (0, 10)), 10)
    assert batch.mel_BFM.numpy().dtype == dtype
    assert batch.mel_BFM[:, 0, 0].tolist() == [7, 0, 10]
    assert batch.mel_BFM[1, :, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1], "a short track is repeated"
    assert batch.target_BG.tolist() == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize("encoding", ["uint8", "float16", "float32"])
def test_values_are_decoded_on_the_device_as_the_store_decodes_them(encoding):
    mel_FM = np.random.default_rng(0).uniform(-100, 40, (50, 8)).astype(np.float32)
    stored_FM = encode_db(mel_FM, encoding)
    # Multiply and add may be fused, or not: that changes the last bit of a product of up to 140 dB.
    np.testing.assert_allclose(
        to_db(torch.from_numpy(stored_FM)).numpy(), decode_db(stored_FM), rtol=0, atol=140 * 2**-23
    )


def test_threads_return_batches_in_order():
    source, tracks = held()
    jobs = [crops((0, start)) for start in range(10)]
    read = list(read_ahead(lambda it: read_crops(source, tracks, it, 5), jobs, threads=3))
    assert [int(crop_BFM[0, 0, 0]) for crop_BFM in read] == list(range(10))


def test_memory_is_used_again_only_when_nothing_refers_to_the_batch():
    memory, shape, uint8 = BatchMemory(), (4, 3, 2), np.dtype(np.uint8)
    first = memory.empty(shape, uint8)
    address, part = first.data_ptr(), first[1:]
    del first
    assert memory.empty(shape, uint8).data_ptr() != address, "a part of it is still in use"
    del part
    held = [memory.empty(shape, uint8) for _ in range(2)]
    assert address in {it.data_ptr() for it in held}
    assert len({it.data_ptr() for it in held}) == 2
    assert memory.empty((1, 3, 2), np.dtype(np.float16)).dtype == torch.float16
