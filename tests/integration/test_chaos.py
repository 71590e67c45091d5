"""Seeded faults of every kind on every stage, and nights in compressed time; the programs print their tables."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.benchmarks.chaos import run_faults, table
from tests.benchmarks.nights import run_nights
from tests.support import postgres
from tests.support.chaos_site import KINDS

STAGES = 3


@pytest.fixture
def folder(need):
    """A folder that the user of Postgres may enter."""
    need(not postgres.unavailable_reason(), postgres.unavailable_reason())
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_fault_loses_an_artefact_and_the_same_command_completes(folder):
    outcomes, late = run_faults(folder, len(KINDS) * STAGES, seed=1)
    shown = table(outcomes, late)
    assert not [it for it in outcomes if it.damage or it.rerun], shown
    assert {it.kind for it in outcomes} == set(KINDS), shown


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_nights_do_not_overlap_nor_pile_up_and_the_database_stays_flat(tmp_path):
    nights, watch = run_nights(tmp_path, 12, 30.0)
    assert [night.number for night in nights if night.killed] == [10]
    assert watch.overlaps() == 0
    assert max(night.late for night in nights) <= 1
    assert max(night.rows for night in nights[9:]) < 1.5 * nights[8].rows
