"""A test session fails if a process that it started is left running at its end."""

import pytest

from tests.support.processes import end_processes_of_session, mark_session

SESSION = mark_session()
LEFT_RUNNING = pytest.StashKey[list[str]]()


@pytest.hookimpl(trylast=True)  # after the other test processes ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Kill what is left running, and fail the session."""
    if hasattr(session.config, "workerinput"):
        return  # the process that started this one looks for all
    left = session.config.stash[LEFT_RUNNING] = end_processes_of_session(SESSION)
    if left and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was left running."""
    if left := config.stash.get(LEFT_RUNNING, []):
        terminalreporter.section("left running, and killed", red=True)
        for line in left:
            terminalreporter.line(line)
