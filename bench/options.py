"""Options that several programs of the bench have."""

from __future__ import annotations

import shutil
from pathlib import Path

import click


class _Program(click.ParamType[Path]):
    """A program by its name on PATH or by its path."""

    name = "program"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> Path:
        found = shutil.which(str(value))
        if found is None:
            self.fail(f"{value}: no such program", parameter, context)
        return Path(found).resolve()


syncthing_option = click.option(
    "--syncthing",
    type=_Program(),
    default="syncthing",
    show_default=True,
    metavar="PROGRAM",
    help="Syncthing, by its name or path.",
)
