"""The hash of the audio of a file, which tagging must never change."""

from pathlib import Path

from store.tags.payload import hash_payload
from store.tags.write import resolve_audio_file, translate_errors


def audio_hash(path: Path | str) -> str:
    """Hash the encoded audio of a file: tags may come and go, the hash stays. Raises: BadInput."""
    with translate_errors(path):
        return hash_payload(resolve_audio_file(path))
