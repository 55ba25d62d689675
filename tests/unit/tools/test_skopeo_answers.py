"""What is matched of skopeo's words, against what each version was recorded to say (tests/transcripts)."""

import pytest

from regwrap.tools import answers
from regwrap.tools.answers import Says, Words
from regwrap.tools.skopeo import fatal_text, is_absent
from tests.answers import matched, read_transcript, recorded_versions
from tests.conditions import CONDITIONS, told_of

VERSIONS = ("1.9.3", "1.18.0")  # Debian 12's and 13's


def test_both_versions_are_recorded() -> None:
    assert set(VERSIONS) <= set(recorded_versions())


@pytest.mark.parametrize("words", answers.SKOPEO, ids=lambda words: str(words.pattern))
@pytest.mark.exhaustive
def test_the_versions_that_say_it_are_those_that_were_recorded(words: Words) -> None:
    said = {
        version: {pattern for answer in read_transcript(version).values() for pattern in matched(answer.stderr)}
        for version in VERSIONS
    }
    assert words.seen == tuple(version for version in VERSIONS if words.pattern in said[version])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_each_version_means_the_same(version: str, condition: str) -> None:
    answer, expected = read_transcript(version)[condition], CONDITIONS[condition]
    said = fatal_text(answer.stderr)
    assert is_absent(answer.stderr) == (expected.means == Says.ABSENT)
    assert answers.meaning(said) == expected.means
    assert answers.cause_of(said) is told_of(condition)
