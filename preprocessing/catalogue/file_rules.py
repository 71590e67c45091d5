"""Which entries of a source are left out: known junk, by named rules, and what `--exclude` matches.

A glob without "/" matches the name of a file or folder at any depth; with "/" it matches the path from the source.
`*` and `?` do not match "/", `**` does; "/" at the end matches folders only. Case does not count, nor does it
whether an accent is one character or two: disks differ in both.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence

# Names of folders that systems, file servers and synchronisation programs make, by rule.
JUNK_FOLDERS = {
    "recycle-bin": (
        "#recycle", "@recycle", "$recycle.bin", ".recycle", ".recycle.bin", ".trash", ".trash-*", ".trashes",
        ".dtrash", ".globaltrash", "network trash folder",
    ),
    "old-versions": (".stversions", ".sync"),
    "snapshots": ("#snapshot", "@recently-snapshot", "@snapshot", ".snapshot", ".snapshots", "~snapshot", ".zfs"),
    "nas-index": ("@eadir", "@tmp", ".@__thumb", ".appledouble", ".appledb", ".appledesktop"),
    "system-folder": (
        "system volume information", ".spotlight-v100", ".fseventsd", ".temporaryitems", "temporary items",
        ".documentrevisions-v100", "__macosx", ".thumbnails", ".cache", ".dropbox.cache", ".stfolder",
    ),
    "version-control": (".git", ".hg", ".svn", ".bzr"),
    "own-draft": (".spectrogram-one-*",),
}  # fmt: skip
# Words that could be the name of an album ("Lost+Found"): only as the system spells them.
SPELT_JUNK_FOLDERS = {"recycle-bin": ("RECYCLER",), "system-folder": ("lost+found",)}
JUNK_FILES = {
    "apple-double": ("._*",),
    "recycle-bin": (".trashed-*", ".pending-*"),
    "own-draft": (f".{'?' * 32}.part*",),
}
NOT_ENTERED = ("snapshots", "version-control")  # a copy of the whole source each, and thousands of objects


def translate_glob(glob: str) -> str:
    """Return the regular expression of a glob, without anchors."""
    parts = []
    position = 0
    while position < len(glob):
        char = glob[position]
        end = glob.find("]", position + 2) if char == "[" else -1
        if glob.startswith("**/", position):
            parts.append("(?:.*/)?")
            position += 3
        elif glob.startswith("**", position):
            parts.append(".*")
            position += 2
        elif end > 0:
            inner = glob[position + 1 : end].replace("\\", r"\\").replace("[", r"\[")
            parts.append(f"[^/{inner[1:]}]" if inner[0] in "!^" else f"[{inner}]")
            position = end + 1
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char))
            position += 1
    return "".join(parts)


class FileRules:
    """The rules by which entries of a source are left out; `include` is stronger than every rule.

    A glob of `include` takes junk back in only if it names it: "*.flac" does not match what is in "#recycle".
    """

    def __init__(self, exclude: Sequence[str] = (), include: Sequence[str] = ()) -> None:
        self._exclude = [(f"--exclude {glob}", _compile(glob)) for glob in exclude]
        self._include = [_compile(glob) for glob in include]
        self._named = [
            re.compile(f"(?i:{translate_glob(part)})$")
            for glob in map(_normal, include)
            for part in glob.split("/")
            if part and not part.startswith("*")
        ]

    def excluding_rule(self, path: str) -> str | None:
        """Return the rule that leaves out a file, or a folder whose path ends in "/"; None if it is included."""
        junk = list(JUNK.finditer(path))
        rules = [str(it.lastgroup).rstrip("_").replace("_", "-") for it in junk]
        if not (self._exclude or self._include):
            return rules[0] if rules else None
        unnamed = next((rule for rule, it in zip(rules, junk, strict=True) if not self._is_named(it)), None)
        path = _normal(path)
        if unnamed is None and any(glob.search(path) for glob in self._include):
            return None
        if rules:
            return unnamed or rules[0]
        return next((name for name, glob in self._exclude if glob.search(path)), None)

    def enters(self, folder: str) -> bool:
        """Return whether a folder is walked, be it to count the files in it that are left out."""
        return self.excluding_rule(folder) not in NOT_ENTERED or all(
            self._is_named(it) for it in JUNK.finditer(folder)
        )

    def _is_named(self, junk: re.Match[str]) -> bool:
        return any(name.match(junk[0].strip("/")) for name in self._named)


def _normal(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _compile(glob: str) -> re.Pattern[str]:
    glob = _normal(glob).removeprefix("./")
    is_anchored = "/" in glob.rstrip("/")
    end = "/" if glob.endswith("/") else "(?:/|$)"
    start = "^" if is_anchored else "(?:^|/)"
    return re.compile(f"(?is){start}{translate_glob(glob.strip('/'))}{end}")


def _junk_groups(rules: Mapping[str, Sequence[str]], number: int, end: str, flag: str) -> list[str]:
    """Return a named group per rule. A rule may have several, and a name is used once: `number` underscores differ."""
    return [
        f"(?P<{rule.replace('-', '_')}{'_' * number}>(?{flag}:{'|'.join(map(translate_glob, names))}){end})"
        for rule, names in rules.items()
    ]


JUNK = re.compile(
    "(?:^|(?<=/))(?:{})".format(
        "|".join(
            _junk_groups(JUNK_FOLDERS, 0, "(?=/)", "i")
            + _junk_groups(SPELT_JUNK_FOLDERS, 1, "(?=/)", "-i")
            + _junk_groups(JUNK_FILES, 2, "$", "i")
        )
    ),
    re.DOTALL,
)
