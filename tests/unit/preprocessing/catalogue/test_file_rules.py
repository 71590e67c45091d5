"""Known junk is left out by a named rule, music is not; globs leave out and take back in."""

import pytest

from preprocessing.catalogue.file_rules import FileRules

JUNK = {
    "#recycle/x.mp3": "recycle-bin",
    "Music/$Recycle.Bin/S-1-5-21/x.mp3": "recycle-bin",
    ".Trash-1000/files/x.mp3": "recycle-bin",
    "a/.trashed-1700000000-x.mp3": "recycle-bin",
    "RECYCLER/x.mp3": "recycle-bin",
    "a/@eaDir/x.mp3": "nas-index",
    "#snapshot/daily/x.mp3": "snapshots",
    ".stversions/x.mp3": "old-versions",
    "lost+found/x.mp3": "system-folder",
    "__MACOSX/a/x.mp3": "system-folder",
    ".git/annex/x.mp3": "version-control",
    "a/._x.mp3": "apple-double",
    "a/.spectrogram-one-0123/x.mp3": "own-draft",
    f"a/.{'0f' * 16}.part.mp3": "own-draft",
}
MUSIC = (
    "...And Justice for All/x.mp3", ".38 Special/x.mp3", "Normal/...And then.mp3", ".hidden.mp3", "Lost+Found/x.mp3",
    "Recycler/x.mp3", "Snapshots/x.mp3", "#1 Record/x.mp3", "@eaDir.mp3", "Trash/x.mp3", "._x/y.mp3", "git/x.mp3",
    "a/#recycle.mp3", "$ide/x.mp3", "...part.mp3",
)  # fmt: skip


@pytest.mark.parametrize(("path", "rule"), JUNK.items())
def test_junk_has_the_name_of_its_rule(path, rule):
    assert FileRules().excluding_rule(path) == rule
    assert FileRules(exclude=["*"]).excluding_rule(path) == rule


@pytest.mark.parametrize("path", MUSIC)
def test_music_is_not_taken_for_junk(path):
    assert FileRules().excluding_rule(path) is None


@pytest.mark.parametrize(
    ("glob", "matches", "others"),
    [
        ("*.wav", ["a.wav", "b/c/A.WAV", ".x.wav"], ["a.wav.mp3", "wav", "b.wav2/c.mp3"]),
        ("Live", ["Live/a.mp3", "b/live/c.mp3", "Live"], ["Live at X/a.mp3", "Alive/a.mp3"]),
        ("Live/", ["Live/a.mp3", "b/Live/"], ["Live", "b/Live"]),
        ("a/b", ["a/b", "A/B/c.mp3"], ["x/a/b", "a/x/b"]),
        ("/a", ["a/x.mp3", "a"], []),
        ("a/*/c.mp3", ["a/b/c.mp3"], ["a/c.mp3", "a/b/d/c.mp3"]),
        ("a/**/c.mp3", ["a/b/c.mp3", "a/c.mp3", "a/b/d/c.mp3"], ["b/a/c.mp3", "a/xc.mp3"]),
        ("**/demos/**", ["x/demos/a.mp3", "demos/b/c.mp3"], ["x/demos2/a.mp3"]),
        ("track ?.mp3", ["a/track 1.mp3"], ["track 12.mp3", "track /.mp3"]),
        ("[ab]*[!0-9].mp3", ["ax.mp3", "b/bb.mp3"], ["cx.mp3", "a1.mp3"]),
        ("[x.mp3", ["[x.mp3"], ["x.mp3"]),
        ("a.(b)+$", ["a.(b)+$"], ["ab"]),
        ("Caf\u00e9*", ["Cafe\u0301/x.mp3", "CAF\u00c9.mp3"], ["Cafe/x.mp3"]),
    ],
)
def test_globs(glob, matches, others):
    rules = FileRules(exclude=[glob])
    assert [rules.excluding_rule(path) for path in matches] == [f"--exclude {glob}"] * len(matches)
    assert [rules.excluding_rule(path) for path in others] == [None] * len(others)


def test_include_is_stronger_than_exclude():
    rules = FileRules(exclude=["*", "a.flac"], include=["*.flac"])
    assert rules.excluding_rule("b/a.flac") is None
    assert rules.excluding_rule("b/a.mp3") == "--exclude *"


@pytest.mark.parametrize(
    ("glob", "taken", "left"),
    [
        ("#recycle", ["#recycle/x.mp3", "a/#Recycle/b/x.mp3"], ["@eaDir/x.mp3", "#recycle/._x.mp3"]),
        ("#recycle/keep/*", ["#recycle/keep/x.mp3"], ["#recycle/x.mp3", "b/#recycle/keep/x.mp3"]),
        ("._*", ["._x.mp3", "a/._y.mp3"], ["#recycle/._x.mp3"]),
        ("*.flac", ["x.flac"], ["#recycle/x.flac", "._x.flac", ".git/x.flac"]),
        ("**", ["x.mp3"], ["#recycle/x.mp3", "._x.mp3"]),
    ],
)
def test_junk_is_taken_in_by_a_glob_that_names_it(glob, taken, left):
    rules = FileRules(include=[glob])
    assert [rules.excluding_rule(path) for path in taken] == [None] * len(taken)
    assert None not in [rules.excluding_rule(path) for path in left]


def test_snapshots_and_version_control_are_not_walked_unless_they_are_named():
    assert not FileRules().enters(".snapshots/")
    assert not FileRules(include=["*.mp3"]).enters(".git/")
    assert FileRules(include=[".snapshots/1/**"]).enters(".snapshots/")
    assert FileRules().enters("#recycle/")
    assert FileRules(exclude=["a"]).enters("a/")
