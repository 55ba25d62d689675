"""What the real skopeo says in each condition that regwrap tells apart: made on loopback, recorded by version.

`python -m tests.answers` writes the transcript of the skopeo that is installed to tests/transcripts. Unit tests read
all of them; a test in tests/tools makes each condition again and compares.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from regwrap.core.errors import ToolError
from regwrap.tools import answers
from tests.asking import Answer, made_place
from tests.conditions import CONDITIONS

TRANSCRIPTS: Final = Path(__file__).parent / "transcripts"


def answer_of(condition: str, directory: Path) -> tuple[Answer, ToolError | None]:
    """Make the condition; what skopeo said, with what is random left out, and what regwrap made of it."""
    raised: ToolError | None = None
    with made_place(directory) as place:
        try:
            CONDITIONS[condition].make(place)
        except ToolError as error:
            raised = error
        answer = place.launcher.answer()
        return Answer(answer.exit_code, _plain(answer.stderr, directory)), raised


def _plain(said: str, directory: Path) -> str:
    for pattern, name in (
        (r'time="[^"]*"', 'time="TIME"'),
        (re.escape(f"{directory}"), "DIRECTORY"),
        (r"127\.0\.0\.1:\d{2,}", "127.0.0.1:PORT"),
        (r"\b(run|sync)-[a-z0-9_]{8}\b", r"\1-RANDOM"),
        (r"\b[0-9a-f]{64}\b", "DIGEST"),  # of layers: zlib differs
        (r"\d+ @[\d.]+ ms|@ [\d.]+ ms", "TIME"),
        (r"uploads/[0-9a-f-]{36}[^ \"]*", "uploads/RANDOM"),
    ):
        said = re.sub(pattern, name, said)
    return said


def installed_version() -> str:
    said = subprocess.run(["skopeo", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"\d+\.\d+\.\d+", said)
    assert match, said
    return match[0]


def recorded_versions() -> list[str]:
    return sorted(path.stem.removeprefix("skopeo-") for path in TRANSCRIPTS.glob("skopeo-*.json"))


def read_transcript(version: str) -> dict[str, Answer]:
    document = json.loads((TRANSCRIPTS / f"skopeo-{version}.json").read_text())
    return {name: Answer(**answer) for name, answer in document.items()}


def matched(said: str) -> list[str]:
    """The patterns of regwrap's table that are in what skopeo said."""
    return [words.pattern for words in answers.SKOPEO if re.search(words.pattern, said)]


def record() -> None:
    heard = {}
    for condition in CONDITIONS:
        with tempfile.TemporaryDirectory() as directory:
            sys.stdout.write(f"{condition}\n")
            heard[condition] = answer_of(condition, Path(directory) / "place")[0]
    document = {name: {"exit_code": answer.exit_code, "stderr": answer.stderr} for name, answer in heard.items()}
    file = TRANSCRIPTS / f"skopeo-{installed_version()}.json"
    TRANSCRIPTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    record()
