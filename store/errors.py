"""The errors that callers handle: one class for each reaction. The tree is complete.

SpectrogramOneError
├── BadInput             an input or a setting is wrong: show the message, exit 1
│   └── DamagedFile          one member of an archive is damaged: reject that member, go on
├── CommitConflict       another writer came first: read again, then retry on top
├── ObjectChanged        another writer changed an object: leave it alone, record it, go on
├── ServiceUnavailable   a service or a cluster is missing: name what to start, exit 1
├── TrainingStopped      training cannot go on (diverged, restarts used up): explain how to resume, exit 1
├── BadAudio             preprocessing/errors.py: an audio file is unusable: record the reason, go on
└── FileSkipped          store/tagging/changes.py: a file must not be written: record the reason, go on

Whatever else is raised is a failing disk or network (OSError: retried, then shown) or a bug.
"""


class SpectrogramOneError(Exception):
    """An error whose message is one line for a person: where, what was found, what was expected, what to do."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; the name of its class where the message is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class BadInput(SpectrogramOneError, ValueError):
    """An input or a setting cannot be used as it is, and trying again will not help."""


class DamagedFile(BadInput):
    """One member of an archive differs from what the directory of the archive states."""


class CommitConflict(SpectrogramOneError):
    """Another writer published between our reading and our writing."""


class ObjectChanged(SpectrogramOneError):
    """Another writer changed an object between our reading and our writing."""


class ServiceUnavailable(SpectrogramOneError):
    """A server, a scheduler or its workers cannot be reached, or are too few."""


class TrainingStopped(SpectrogramOneError):
    """A training cannot go on: it diverged, or its restarts are used up. The last checkpoint is kept."""
