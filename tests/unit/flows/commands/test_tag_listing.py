"""What `tags show`, `tags runs` and the end of `tag` print, and the exit status."""

import shutil

import pytest

from flows.commands import run as commands
from flows.commands.tag_listing import diff_tags, show_tags
from flows.commands.tags import list_runs
from flows.reporting.tagging_summary import TagSummary
from store.errors import BadInput
from store.tagging.run import open_run
from store.tags.write import write_genres
from tests.support.tagging_model import DEMO


def test_show_wants_a_path_that_is_there(tmp_path):
    with pytest.raises(BadInput, match="tags show: name at least one file or folder"):
        list(show_tags([]))
    with pytest.raises(BadInput, match=r"nothere.mp3: no such file or folder"):
        list(show_tags([tmp_path / "nothere.mp3"]))


def test_control_characters_are_shown_by_their_codes(tmp_path):
    song, other = tmp_path / "a\x1b[31m.mp3", tmp_path / "b.mp3"
    shutil.copyfile(DEMO / "200001.mp3", song)
    shutil.copyfile(DEMO / "200001.mp3", other)
    write_genres(other, ["Blues"])
    data = other.read_bytes()
    song.write_bytes(data.replace(b"Blues", b"B\x1b[3m", 1))
    text = "\n".join([*show_tags([song]), *diff_tags(song, other)])
    assert "\x1b" not in text
    assert "a\\x1b[31m.mp3" in text
    assert "genre: B\\x1b[3m" in text


def test_names_of_runs_are_whole_in_a_pipe(tmp_path, capsys):
    source = "/music/" + "a long name of a folder/" * 6
    run = open_run(f"{tmp_path}/runs", {"source": source, "copy_to": "", "write": True, "apply": ""})
    list_runs(runs=f"{tmp_path}/runs")
    printed = capsys.readouterr().out
    assert run.name in printed
    assert source in printed


def summary(**statuses: int) -> TagSummary:
    return TagSummary(
        run="r", source="/music", model="v", dry_run=False, statuses=statuses, reasons={}, genres={}, changes=[],
        disagreements=[], unchanged=[], notes=[], commands=[], predictions="p", csv="c", page="h", seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ({"written": 3, "kept": 1, "unsure": 2}, None),
        ({"written": 3, "skipped": 1}, 3),
        ({"rejected": 1}, 3),
        ({"restored": 2, "as-it-was": 1, "skipped": 0}, None),
    ],
)
def test_the_exit_status_is_3_where_files_were_skipped_or_rejected(statuses, status, capsys):
    if status is None:
        commands._print_tagging(summary(**statuses))
    else:
        with pytest.raises(SystemExit) as ended:
            commands._print_tagging(summary(**statuses))
        assert ended.value.code == status
    assert "/music:" in capsys.readouterr().out


def test_the_name_of_a_source_cannot_command_a_terminal():
    printed = summary(written=1).model_copy(update={"source": "/music/\x1b[2J.mp3"}).lines()
    assert printed[0].startswith(r"/music/\x1b[2J.mp3: 1 written")
