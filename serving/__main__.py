"""Serve a model: new songs in, first listeners out.

    python -m serving model=SERVICE store=STORE                  on this machine alone, without a token
    FIRSTPLAY_TOKEN=… python -m serving model=SERVICE store=STORE host=0.0.0.0

SERVICE is made by pipeline.service; STORE is made where it is missing, and keeps what comes in. The console is at /,
the description of all requests at /openapi.json. A new version of SERVICE is taken over while requests go on;
SIGTERM ends the service when those in flight are answered.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from configs.errors import UserError
from configs.load import command
from configs.serving import ServingConfig

TOKEN = "FIRSTPLAY_TOKEN"
SHORTEST = 16  # characters of a token


def main(config: ServingConfig) -> None:
    """Run the command (see the module's docstring)."""
    token = token_of(config)
    if token is None and not loopback(config.host):
        raise UserError(f"host={config.host} is not this machine alone: set {TOKEN} or token=FILE")
    print(f"loading {config.model}", flush=True)
    from serving.server import serve  # here: --help and wrong options answer at once

    serve(config, token)


def token_of(config: ServingConfig) -> str | None:
    """The bearer token; None where there is none.

    Raises:
        UserError: the file cannot be read, or the token is too short to be one.
    """
    if config.token is not None:
        try:
            token = Path(config.token).read_text("utf-8").splitlines()[0].strip()
        except (OSError, ValueError, IndexError):
            raise UserError(f"token={config.token}: a text file is wanted whose first line is the token") from None
    else:
        token = os.environ.get(TOKEN, "").strip()
    if config.token is None and not token:
        return None
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(f"the token must have {SHORTEST} visible ASCII characters or more")
    return token


def loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    command(main, ServingConfig, __doc__)
