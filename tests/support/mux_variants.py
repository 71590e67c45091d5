"""One second of the demo music in every layout that FFmpeg can write of the formats whose tags are edited."""

import hashlib
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from tests.support.audio_formats import encode

SECONDS = 1.0
SEEK_S = 0.5
SOURCES = {"wmav1": "asf", "wmav2": "asf", "pcm_mulaw": "wav", "adpcm_ms": "wav"}  # Matroska for the others
RATES_HZ = {"libopus": 48_000, "ac3": 44_100, "libmp3lame": 44_100}  # 22,050 for the others


@dataclass(frozen=True)
class Variant:
    """A layout: codec, muxer and its options; `refused` if no edit of its tags would be safe."""

    codec: str
    muxer: str
    options: Mapping[str, str] = field(default_factory=dict)
    refused: bool = False

    def __str__(self) -> str:
        options = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.codec}-{self.muxer}-{options or 'plain'}"


def _mp4(muxer: str, *movflags: str, codec: str = "aac", refused: bool = False, **options: str) -> Variant:
    flags = {"movflags": "+".join(("", *movflags))} if movflags else {}
    return Variant(codec, muxer, {**flags, **options}, refused)


FRAGMENT = {"frag_duration": "200000"}
VARIANTS = [
    _mp4("ipod"),
    _mp4("mov", "faststart", codec="pcm_s16le", refused=True),
    _mp4("mp4", "faststart", codec="alac"),
    _mp4("mp4", "rtphint"),
    _mp4("mp4", "write_colr", "use_metadata_tags", movie_timescale="44100"),
    _mp4("3gp"),
    _mp4("mp4", "empty_moov", **FRAGMENT),
    _mp4("mp4", **FRAGMENT),
    _mp4("mp4", "faststart", **FRAGMENT),
    _mp4("mp4", "empty_moov", "default_base_moof", **FRAGMENT),
    _mp4("mp4", "empty_moov", "omit_tfhd_offset", **FRAGMENT),
    _mp4("mp4", "delay_moov", "dash", "global_sidx", **FRAGMENT),
    _mp4("mp4", "dash", "empty_moov", "skip_trailer", **FRAGMENT),
    _mp4("mp4", "cmaf", codec="flac", strict="-2", **FRAGMENT),
    _mp4("mp4", "frag_every_frame", "empty_moov"),
    _mp4("mp4", "hybrid_fragmented", **FRAGMENT),
    _mp4("ismv", **FRAGMENT),
    _mp4("mp4", encryption_scheme="cenc-aes-ctr", encryption_key="00" * 16, encryption_kid="11" * 16),
    _mp4("f4v", "faststart", codec="libmp3lame", refused=True),
    Variant("vorbis", "ogg"),
    Variant("vorbis", "ogg", {"page_duration": "20000"}),
    Variant("libopus", "opus", {"page_duration": "20000", "serial_offset": "7"}),
    Variant("flac", "oga", {"page_duration": "100000"}),
    Variant("wmav2", "asf", {"packet_size": "1000"}),
    Variant("wmav1", "asf"),
    Variant("pcm_s16le", "wav", {"write_bext": "1", "write_peak": "on"}),
    Variant("libmp3lame", "wav"),
    Variant("pcm_f32le", "wav", {"rf64": "always"}, refused=True),
    Variant("pcm_s24be", "aiff", {"write_id3v2": "1"}),
    Variant("flac", "flac"),
    Variant("libmp3lame", "mp3", {"id3v2_version": "3", "write_id3v1": "1"}),
    Variant("libmp3lame", "mp3", {"write_xing": "0", "id3v2_version": "0"}),
    Variant("aac", "adts", {"write_apetag": "1", "write_id3v2": "1"}),
    Variant("tta", "tta"),
    Variant("wavpack", "wv"),
]


class MuxFactory:
    """Writes variants: each codec encodes the music once, and its packets are copied into each layout."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, variant: Variant, target: Path) -> None:
        """Write a file of a variant, with a title. Raises: av.FFmpegError for options that do not go together."""
        with (
            av.open(str(self._encoded(variant.codec))) as source,
            av.open(str(target), "w", format=variant.muxer, options=dict(variant.options)) as sink,
        ):
            stream = sink.add_stream_from_template(source.streams.audio[0])
            sink.metadata["title"] = "Before"
            for packet in source.demux(audio=0):
                if packet.dts is not None:
                    packet.stream = stream
                    sink.mux(packet)

    def write_by_command(self, variant: Variant, target: Path) -> bool:
        """Write a file of a variant in a process of its own, which odd options may crash; return whether it did."""
        options = [word for name, value in variant.options.items() for word in (f"-{name}", value)]
        source = ["-i", str(self._encoded(variant.codec)), "-c", "copy", "-metadata", "title=Before"]
        command = [
            "ffmpeg",
            "-v",
            "quiet",
            "-nostdin",
            "-y",
            *source,
            *options,
            "-f",
            variant.muxer,
            str(target),
        ]
        return subprocess.run(command, check=False).returncode == 0

    def _encoded(self, codec: str) -> Path:
        path = self._folder / codec
        if not path.exists():
            container = SOURCES.get(codec, "matroska")
            encode(path, codec, RATES_HZ.get(codec, 22_050), container, SECONDS)
        return path


def decode_digests(path: Path) -> tuple[str, ...]:
    """Hash what FFmpeg decodes: from the start, after a seek, and after one by the index of fragments."""
    return (
        _decode_digest(path, 0.0, {}),
        _decode_digest(path, SEEK_S, {}),
        _decode_digest(path, SEEK_S, {"use_mfra_for": "pts"}),
    )


def _decode_digest(path: Path, start_s: float, options: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    with (
        suppress(av.FFmpegError, IndexError),  # damaged, or without audio: what was decoded until then counts
        av.open(str(path), options=dict(options), metadata_errors="replace") as container,
    ):
        if start_s:
            container.seek(int(start_s * av.time_base))
        for frame in container.decode(audio=0):
            digest.update(str(frame.pts).encode())
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()


SILENT = hashlib.sha256().hexdigest()  # of a file of which nothing can be decoded

MOVFLAGS = [
    "faststart",
    "rtphint",
    "empty_moov",
    "frag_keyframe",
    "separate_moof",
    "isml",
    "dash",
    "cmaf",
    "delay_moov",
    "global_sidx",
    "skip_sidx",
    "negative_cts_offsets",
    "skip_trailer",
    "use_metadata_tags",
    "write_colr",
    "default_base_moof",
    "omit_tfhd_offset",
    "frag_every_frame",
    "frag_discont",
    "disable_chpl",
    "prefer_icc",
    "write_gama",
    "hybrid_fragmented",
]
CHOICES: dict[str, tuple[list[str], dict[str, list[str]]]] = {  # muxer: codecs, and options with their values
    muxer: (
        codecs,
        {
            "frag_duration": ["50000", "200000", "900000"],
            "frag_size": ["1000", "9000"],
            "min_frag_duration": ["100000"],
            "movie_timescale": ["1000", "90000", "1000000"],
            "moov_size": ["9000", "20000"],
            "use_editlist": ["0", "1"],
            "write_tmcd": ["1"],
            "write_prft": ["wallclock"],
            "write_btrt": ["0"],
            "empty_hdlr_name": ["1"],
            "brand": ["M4A ", "mp42"],
            "encryption_scheme": ["cenc-aes-ctr"],
        },
    )
    for muxer, codecs in {
        "mp4": ["aac", "alac", "flac", "libopus", "ac3", "libmp3lame"],
        "mov": ["aac", "alac", "pcm_s16le", "pcm_s24be", "pcm_mulaw", "libmp3lame"],
        "ipod": ["aac", "alac"],
        "3gp": ["aac"],
        "psp": ["aac"],
        "ismv": ["aac"],
        "f4v": ["aac", "libmp3lame"],
    }.items()
} | {
    "ogg": (
        ["vorbis", "libopus", "flac"],
        {"page_duration": ["10000", "70000", "1000000"], "serial_offset": ["3"]},
    ),
    "opus": (["libopus"], {"page_duration": ["20000", "500000"]}),
    "asf": (["wmav1", "wmav2", "libmp3lame"], {"packet_size": ["500", "3200", "20000"]}),
    "wav": (
        ["pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_mulaw", "adpcm_ms", "libmp3lame"],
        {"write_bext": ["1"], "write_peak": ["on"], "rf64": ["auto", "always"], "bitexact": ["1"]},
    ),
    "aiff": (["pcm_s16be", "pcm_s24be", "pcm_mulaw"], {"write_id3v2": ["1"], "id3v2_version": ["3", "4"]}),
    "flac": (["flac"], {"write_header": ["1"]}),
    "mp3": (["libmp3lame"], {"id3v2_version": ["0", "3", "4"], "write_id3v1": ["1"], "write_xing": ["0"]}),
    "adts": (["aac"], {"write_id3v2": ["1"], "write_apetag": ["1"], "write_mpeg2": ["1"]}),
    "tta": (["tta"], {}),
    "wv": (["wavpack"], {}),
}


def random_variant(random: np.random.Generator) -> Variant:
    """Draw a muxer, a codec, and some of the muxer's options; two of three muxers are of the MP4 family."""
    muxer = str(random.choice([*CHOICES]))
    codecs, settings = CHOICES[muxer]
    share = 2 / (1 + len(settings))  # of the options that are set
    options = {
        name: str(random.choice(values)) for name, values in settings.items() if random.random() < share
    }
    if "frag_duration" in settings:
        count = int(random.integers(6))
        flags = [str(flag) for flag in random.choice(MOVFLAGS, count, replace=False)]
        options["movflags"] = "+".join(("", *flags)) if flags else "+faststart"
        options["strict"] = "-2"
    if "encryption_scheme" in options:
        options |= {"encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    return Variant(str(random.choice(codecs)), muxer, options)
