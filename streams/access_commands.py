"""The command `streamgauge acls`."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.command_line import ConfigFile
from streams.settings import load_settings


def acls(
    role: Annotated[str, typer.Argument(help="Such as worker, judge, retrain; a wrong one says which there are.")],
    principal: Annotated[str, typer.Option(help="Who gets them, as the broker calls it.")] = "User:streamgauge",
    config: ConfigFile = None,
) -> None:
    """Print the kafka-acls.sh lines that allow a role what it needs, and nothing more. The broker is not asked."""
    from streams.grants import ROLES, commands, grants

    if role not in ROLES:
        raise typer.BadParameter(f"{role!r} is not a role; allowed: {', '.join(ROLES)}")
    settings = load_settings(config)
    wanted = grants(settings, next(one for one in ROLES if one == role))
    print("\n".join(commands(wanted, settings.broker.bootstrap, principal)))
