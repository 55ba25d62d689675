"""The real skopeo in each condition that is told apart: its words are those of its transcript, and mean the same."""

from pathlib import Path

import pytest

from regwrap.tools import answers
from regwrap.tools.runner import Tool
from regwrap.tools.skopeo import fatal_text
from tests.answers import answer_of, installed_version, matched, read_transcript, recorded_versions
from tests.conditions import CONDITIONS, told_of

pytestmark = pytest.mark.tools(Tool.SKOPEO, Tool.DOCKER_REGISTRY)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_its_words_mean_what_they_are_taken_for(tmp_path: Path, condition: str) -> None:
    expected = CONDITIONS[condition]
    answer, error = answer_of(condition, tmp_path / "place")
    said = fatal_text(answer.stderr)
    assert answers.meaning(said) == expected.means, answer
    assert answers.cause_of(said) is told_of(condition)
    if answers.Says.ABSENT in expected.means:
        assert error is None
    else:
        assert error is not None
        assert error.transient == (answers.Says.TRANSIENT in expected.means)
    if installed_version() in recorded_versions():
        assert matched(said) == matched(fatal_text(read_transcript(installed_version())[condition].stderr))
