"""What `regwrap --help` needs to know of a command."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A command. `name` is what is typed, `function` is MODULE.NAME below regwrap.cli, `examples` are pairs of a
    purpose and a command line."""

    name: str
    group: str
    function: str
    summary: str
    more: str = ""
    examples: tuple[tuple[str, str], ...]

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.name.split(" "))

    @property
    def help(self) -> str:
        first, *others = self.more.split("\n\n")
        text = "\n\n".join([f"{self.summary} {first}".strip(), *others])
        examples = "\n".join(f"  # {what}\n  {command}" for what, command in self.examples)
        return f"{text}\n\n\b\nExamples:\n{examples}"
