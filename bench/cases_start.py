"""What a command costs before it does anything: seconds of CPU."""

from collections.abc import Generator

from measure import Case, Contender, Target
from scene import Scene


def start_cases(scene: Scene) -> Generator[Case, None, None]:
    python = scene.regwrap[0].replace("/regwrap", "/python")
    missing = scene.missing_regwrap()
    yield Case(
        name="start-up",
        note="The CPU of the whole tree counts.",
        rounds=10,
        seconds=30,
        contenders=(
            Contender(name="regwrap --help", run=lambda: scene.run_regwrap("--help"), missing=missing),
            Contender(name="python -c pass", run=lambda: scene.shell.run([python, "-c", "pass"]), missing=missing),
            Contender(name="regwrap --version", run=lambda: scene.run_regwrap("--version"), missing=missing),
        ),
        targets=tuple(
            Target(
                key=f"start-{word}", text=f"start-up, regwrap --{word}: under 0.15 s of CPU",
                contender=f"regwrap --{word}", metric="cpu", limit=0.15,
            )
            for word in ("help", "version")
        ),
    )  # fmt: skip
