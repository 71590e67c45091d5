"""Genre tags in audio files of every common kind: read, and replaced all or nothing.

Mutagen edits in place, and a crash half way would leave a broken file. So we edit a copy
that lies beside the original, compare it with the original in all but the genre, and swap the two.
"""

import errno
import os
import re
import shutil
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import mutagen
from mutagen.aac import AAC
from mutagen.apev2 import APEv2File
from mutagen.asf import ASF
from mutagen.flac import FLAC
from mutagen.id3 import ID3, TCON, ID3NoHeaderError
from mutagen.monkeysaudio import MonkeysAudio
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4
from mutagen.musepack import Musepack
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggspeex import OggSpeex
from mutagen.oggtheora import OggTheora
from mutagen.oggvorbis import OggVorbis
from mutagen.optimfrog import OptimFROG
from mutagen.tak import TAK
from mutagen.trueaudio import TrueAudio
from mutagen.wavpack import WavPack

from store.audio_payload import audio_hash, container_of, end_of_leading_tags
from store.errors import BadInput
from store.files import replacing
from store.riff import Chunk, copy_chunks, info_content, info_entries, list_chunks, new_chunk, read_chunk

TagFormat = Literal["id3", "riff", "aiff", "flac", "ogg", "mp4", "asf", "ape"]

OGG_KINDS = [OggVorbis, OggOpus, OggFLAC, OggSpeex, OggTheora]
ID3_KINDS = [MP3, AAC, TrueAudio]
APE_KINDS = [WavPack, MonkeysAudio, Musepack, OptimFROG, TAK]

# What mutagen raises on damaged files besides its own error: see the hostile files in the tests.
BROKEN = (mutagen.MutagenError, BadInput, struct.error, ValueError, IndexError, KeyError, EOFError)
