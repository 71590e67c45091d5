"""Real music in every format, made from the bundled excerpts by FFmpeg's encoders."""

from pathlib import Path

import av

DEMO_TRACK = Path("tests/data/demo_music/fma_small/200/200001.mp3")
CODECS = {  # suffix: (codec, rate, container)
    ".mp3": ("libmp3lame", 22050, "mp3"),
    ".flac": ("flac", 22050, "flac"),
    ".opus": ("libopus", 48000, "ogg"),
    ".ogg": ("vorbis", 22050, "ogg"),
    ".m4a": ("aac", 22050, "mp4"),
    ".aac": ("aac", 22050, "adts"),
    ".wma": ("wmav2", 22050, "asf"),
    ".wav": ("pcm_s16le", 22050, "wav"),
    ".aiff": ("pcm_s16be", 22050, "aiff"),
    ".wv": ("wavpack", 22050, "wv"),
}


def encode(
    target: Path,
    codec: str,
    rate: int,
    container: str,
    seconds: float = 1.0,
    bit_rate: int = 96_000,
    **options: str,
) -> None:
    """Turn the first seconds of the demo music into another format, without tags."""
    bare = {"id3v2_version": "0", "write_id3v1": "0"} if container == "mp3" else {}
    with (
        av.open(str(DEMO_TRACK)) as source,
        av.open(str(target), "w", format=container, options=bare) as sink,
    ):
        stream = sink.add_stream(codec, rate=rate, options={"strict": "-2", **options})
        stream.layout = "stereo"
        stream.bit_rate = bit_rate
        resampler = av.AudioResampler(stream.format, "stereo", rate, stream.codec_context.frame_size or None)
        for frame in source.decode(audio=0):
            if frame.time >= seconds:
                break
            for part in resampler.resample(frame):
                sink.mux(stream.encode(part))
        for part in resampler.resample(None):
            sink.mux(stream.encode(part))
        sink.mux(stream.encode(None))
