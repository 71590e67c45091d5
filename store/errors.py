"""Errors a caller acts on, for every floor.

ValueError
└── BadInput           somebody's input or settings cannot be used: show the message, exit non-zero
    ├── CommitConflict     another writer published first: read again, then publish on top
    └── ObjectChanged      another writer changed an object: leave it, and say so
"""


class BadInput(ValueError):
    """What was given cannot be used as it is, and trying again will not help.

    The message is one line for the person who gave it: where, what was found, what was
    wanted, what to do. The command line prints it without a traceback.
    """


class CommitConflict(BadInput):
    """Somebody else published between our reading and our writing."""


class ObjectChanged(BadInput):
    """Somebody else changed an object between our reading and our writing."""
