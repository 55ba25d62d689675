"""Tables in Markdown."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """As it is written, `{…}` for what differs from case to case."""
    flat = " ".join(text.split())
    fence = "``" if "`" in flat else "`"
    edge = " " if "`" in flat else ""
    return f"{fence}{edge}{flat}{edge}{fence}" if flat else ""


def _cell(text: str) -> str:
    """A bar is no end of a cell; in code it need not be marked, and the mark would be shown."""
    flat = " ".join(text.split())
    return flat if flat.startswith("`") and flat.endswith("`") else flat.replace("|", r"\|")
