"""The containers of audio: their formats, and how long they are by their bytes."""
