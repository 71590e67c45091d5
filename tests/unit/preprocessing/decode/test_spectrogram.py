"""From file to spectrogram as librosa does it, in every format, and what lies on the spool."""

import hashlib
import tempfile
from functools import cache

import av
import librosa
import numpy as np
import pytest
import soundfile
import soxr

from preprocessing.decode import decoders as decode
from preprocessing.decode.settings import ExcerptSettings
from preprocessing.decode.spectrogram import spool_mel, verify_sha1
from preprocessing.decode.spool import SpooledMel
from preprocessing.errors import BadAudio
from preprocessing.mel.settings import MelSettings
from tests.support.audio_formats import CODECS, DEMO_TRACK, encode
from tests.support.rounding import level_tolerance_db

RATE_HZ = 22_050
SECONDS = 1.5
SETTINGS = MelSettings()
FORMATS = {  # suffix: what libsndfile calls it
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".aiff": ("AIFF", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}
DEPTHS = [
    *[("WAV", depth) for depth in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")],
    *[("AIFF", depth) for depth in ("PCM_S8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")],
    *[("FLAC", depth) for depth in ("PCM_S8", "PCM_16", "PCM_24")],
]
RATES_HZ = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]


@cache
def music(channels, rate_hz):
    """Return real music, another track on each channel. Shapes: (S, C)."""
    parts = []
    for channel in range(channels):
        path = DEMO_TRACK.with_stem(str(200_001 + channel))
        wave_S, native_hz = soundfile.read(path, int((3 + SECONDS) * 44_100), 3 * 44_100, dtype="float32")
        parts.append(soxr.resample(wave_S[: int(SECONDS * native_hz)], native_hz, rate_hz))
    return np.clip(np.stack(parts, axis=1) * 0.7, -1, 1)


def mel_of(path, excerpt=None, mel=SETTINGS):
    """Return the result of `spool_mel`, and the spectrogram on the spool."""
    with tempfile.TemporaryFile() as spool:
        spooled = spool_mel(path, spool, mel=mel, excerpt=excerpt or ExcerptSettings(), max_duration_s=60.0)
        return spooled, np.concatenate(list(spooled.read_blocks(spool)))


def mel_of_librosa(wave_S):
    power_MF = librosa.feature.melspectrogram(y=wave_S, sr=RATE_HZ, n_fft=2_048, hop_length=512, center=False)
    return librosa.power_to_db(power_MF, top_db=None).T


def assert_alike(ours_FM, theirs_FM):
    """Compare the cells down to 60 dB below the loudest."""
    assert abs(len(ours_FM) - len(theirs_FM)) <= 1  # two lengths may be rounded to either side of a frame
    count = min(len(ours_FM), len(theirs_FM))
    assert count > 0.7 * SECONDS * RATE_HZ / 512
    is_loud = theirs_FM[:count] > theirs_FM.max() - 60
    tolerance_db = level_tolerance_db(2_048, below_peak_db=60, error_of_peak=True)
    assert np.abs(ours_FM[:count] - theirs_FM[:count])[is_loud].max() < tolerance_db


def assert_as_librosa(path):
    wave_S, _ = librosa.load(path, sr=RATE_HZ, mono=True)
    assert_alike(mel_of(path)[1], mel_of_librosa(wave_S))


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_spectrogram_of_librosa(suffix, channels, tmp_path):
    if suffix == ".mp3" and channels > 2:
        return  # there is no such thing
    rate_hz = 48_000 if suffix == ".opus" else 44_100
    container, codec = FORMATS[suffix]
    path = tmp_path / f"it{suffix}"
    soundfile.write(path, music(channels, rate_hz), rate_hz, format=container, subtype=codec)
    assert_as_librosa(path)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
def test_every_rate_gives_the_spectrogram_of_librosa(suffix, rate_hz, tmp_path):
    if suffix == ".mp3" and rate_hz > 48_000:
        return
    container, codec = FORMATS[suffix]
    path = tmp_path / f"it{suffix}"
    soundfile.write(path, music(2, rate_hz), rate_hz, format=container, subtype=codec)
    assert_as_librosa(path)


@pytest.mark.parametrize(("container", "depth"), DEPTHS)
def test_every_depth_gives_the_spectrogram_of_librosa(container, depth, tmp_path):
    path = tmp_path / f"it.{container.lower()}"
    soundfile.write(path, music(2, 44_100), 44_100, format=container, subtype=depth)
    assert_as_librosa(path)


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".wav", ".aiff", ".ogg"])
def test_what_ffmpeg_encodes_gives_the_spectrogram_of_librosa(suffix, tmp_path):
    codec, rate_hz, container = CODECS[suffix]
    encode(tmp_path / f"it{suffix}", codec, rate_hz, container, SECONDS)
    assert_as_librosa(tmp_path / f"it{suffix}")


def test_opus_starts_where_it_says(tmp_path):
    """Libsndfile 1.2.2, and so librosa, starts FFmpeg's Opus files 312 samples off, unless it seeks first."""
    codec, rate_hz, container = CODECS[".opus"]
    path = tmp_path / "it.opus"
    encode(path, codec, rate_hz, container, SECONDS)
    with soundfile.SoundFile(path) as file:
        file.seek(0)
        wave_S = file.read(dtype="float32").mean(axis=1)
    truth_S, _ = read_whole_by_ffmpeg(path)
    assert np.abs(wave_S - truth_S).max() < 0.01
    wave_S = librosa.resample(wave_S, orig_sr=rate_hz, target_sr=RATE_HZ, res_type="soxr_hq")
    assert_alike(mel_of(path)[1], mel_of_librosa(wave_S))


def read_whole_by_ffmpeg(path):
    """Return mono samples and their rate, the whole file in one array."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    parts = []
    for frame in frames:
        samples = frame.to_ndarray()
        samples_CS = samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T
        full = 1 << (8 * samples.dtype.itemsize - 1) if samples.dtype.kind == "i" else 1
        parts.append(samples_CS.astype(np.float32) / full)
    return np.concatenate(parts, axis=1).mean(axis=0), frames[0].rate


@pytest.mark.parametrize("rate_hz", [22_050, 44_100, 48_000])
@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize("suffix", [".m4a", ".wma", ".aac", ".wv"])
def test_formats_that_only_ffmpeg_reads_give_the_spectrogram_of_their_whole_wave(
    suffix, layout, rate_hz, tmp_path
):
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    if suffix == ".wma" and channels > 2:
        return  # version 2 has two at most
    codec, _, container = CODECS[suffix]
    path = tmp_path / f"it{suffix}"
    music_CS = np.ascontiguousarray(music(channels, rate_hz).T)
    with av.open(str(path), "w", format=container) as sink:
        stream = sink.add_stream(codec, rate=rate_hz, layout=layout)
        stream.bit_rate = 64_000 * channels
        frame = av.AudioFrame.from_ndarray(music_CS, format="fltp", layout=layout)
        frame.rate = rate_hz
        resampler = av.AudioResampler(stream.format, layout, rate_hz, stream.codec_context.frame_size or None)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            sink.mux(stream.encode(part))
        sink.mux(stream.encode(None))
    wave_S, native_hz = read_whole_by_ffmpeg(path)
    wave_S = librosa.resample(wave_S, orig_sr=native_hz, target_sr=RATE_HZ, res_type="soxr_hq")
    assert_alike(mel_of(path)[1], mel_of_librosa(wave_S))


@pytest.mark.parametrize("block_values", [60, 997, 4_096])
@pytest.mark.parametrize(("channels", "suffix"), [(1, ".mp3"), (2, ".flac"), (2, ".ogg"), (6, ".wav")])
def test_no_block_boundary_shows(channels, suffix, block_values, tmp_path, monkeypatch):
    container, codec = FORMATS[suffix]
    path = tmp_path / f"it{suffix}"
    soundfile.write(path, music(channels, 44_100)[:30_000], 44_100, format=container, subtype=codec)
    whole, whole_FM = mel_of(path)
    monkeypatch.setattr(decode, "BLOCK_VALUES", block_values)
    pieces, pieces_FM = mel_of(path)
    assert pieces_FM.shape == whole_FM.shape
    np.testing.assert_allclose(pieces_FM, whole_FM, atol=1e-3)
    assert pieces.decoded_s == pytest.approx(whole.decoded_s)
    assert pieces.sha256 == whole.sha256


def test_the_spool_is_read_back_in_pieces_from_where_the_track_starts():
    _, alone_FM = mel_of(DEMO_TRACK)
    with tempfile.TemporaryFile() as spool:
        spool.write(bytes(777))
        spooled = spool_mel(DEMO_TRACK, spool, mel=SETTINGS, excerpt=ExcerptSettings(), max_duration_s=60.0)
        assert spooled.start_byte == 777
        pieces = [piece_FM.copy() for piece_FM in spooled.read_blocks(spool, block_frames=100)]
    assert {len(piece_FM) for piece_FM in pieces} == {100, len(alone_FM) % 100}
    np.testing.assert_array_equal(np.concatenate(pieces), alone_FM)


def test_what_is_recorded_of_a_track():
    spooled, mel_FM = mel_of(DEMO_TRACK)
    assert (spooled.frames, spooled.bands) == mel_FM.shape
    assert spooled.decoded_s == pytest.approx(24.0, abs=0.1)
    assert spooled.stated_s == pytest.approx(24.0, abs=0.1)
    assert not spooled.is_truncated
    assert spooled.sha256 == hashlib.sha256(DEMO_TRACK.read_bytes()).hexdigest()
    assert len(bytes.fromhex(spooled.fingerprint)) == 64


def test_an_excerpt_is_a_part_of_the_whole_and_not_hashed():
    _, whole_FM = mel_of(DEMO_TRACK)
    start = 100 * 512 / RATE_HZ
    spooled, part_FM = mel_of(DEMO_TRACK, ExcerptSettings(start_s=start, duration_s=3.0))
    assert spooled.sha256 is None
    assert spooled.decoded_s == pytest.approx(3.0, abs=0.001)
    edge = 3  # the resampler sees silence beyond the excerpt
    inner_FM = part_FM[edge:-edge]
    is_audible = inner_FM > whole_FM.max() - 60
    reference_FM = whole_FM[100 + edge : 100 + edge + len(inner_FM)]
    assert np.abs(inner_FM - reference_FM)[is_audible].max() < 0.3  # half a sample of offset, at most


def test_a_rest_from_some_second_on_is_an_excerpt_too():
    assert mel_of(DEMO_TRACK, ExcerptSettings(start_s=20.0))[0].sha256 is None
    assert mel_of(DEMO_TRACK, ExcerptSettings(duration_s=4.0))[0].sha256 is None


def test_the_fingerprint_is_that_of_the_track_and_of_no_other(tmp_path):
    one = mel_of(DEMO_TRACK)[0].fingerprint
    assert mel_of(DEMO_TRACK)[0].fingerprint == one
    assert mel_of(DEMO_TRACK.with_stem("200002"))[0].fingerprint != one


def test_a_track_shorter_than_a_window_is_too_short(tmp_path):
    soundfile.write(tmp_path / "it.wav", music(1, RATE_HZ)[:2_047], RATE_HZ)
    with pytest.raises(BadAudio, match=r"too-short: 2047 samples; need 2048"):
        mel_of(tmp_path / "it.wav")
    soundfile.write(tmp_path / "it.wav", music(1, RATE_HZ)[:2_048], RATE_HZ)
    assert mel_of(tmp_path / "it.wav")[1].shape == (1, 128)


def test_a_file_is_the_one_its_publisher_names_or_it_is_refused():
    verify_sha1(DEMO_TRACK, hashlib.sha1(DEMO_TRACK.read_bytes()).hexdigest())
    with pytest.raises(
        BadAudio, match=r"checksum: its SHA-1 is \w{40}; its publisher states abc: fetch it again"
    ):
        verify_sha1(DEMO_TRACK, "abc")


def test_a_spool_that_was_cut_is_an_error_not_an_endless_loop(tmp_path):
    spooled = SpooledMel(0, 10, 8, 1.0, None, 0.0, False, None, "")
    with (tmp_path / "spool").open("w+b") as spool:
        spool.write(bytes(4 * 8 * 9))
        spool.flush()
        with pytest.raises(OSError, match="ends before the spectrogram does"):
            list(spooled.read_blocks(spool))
