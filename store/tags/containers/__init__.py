"""The structures of each container that describe the audio or point into it: read, corrected and verified."""
