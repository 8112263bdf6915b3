"""Serve a model: new songs in, first listeners out.

    python -m serving model=SERVICE store=STORE                  on this machine alone, without a token
    FIRSTPLAY_TOKEN=… python -m serving model=SERVICE store=STORE host=0.0.0.0

SERVICE is made by pipeline.service; STORE is made where it is missing, and keeps what comes in. The console is at /,
the description of all requests at /openapi.json. A new version of SERVICE is taken over while requests go on;
SIGTERM ends the service when those in flight are answered.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from configs.errors import UserError
from configs.load import command
from configs.schema import ServingConfig
from serving.connections import Connection
from serving.limits import Limits

TOKEN = "FIRSTPLAY_TOKEN"
MOST_MB = 256  # a quarter of a decoder's memory
SHORTEST = 16  # characters of a token
LEAST_SECONDS = 5.0  # for the head of a request


def main(config: ServingConfig) -> None:
    """Run the command (see the module's docstring)."""
    import torch  # here: --help and wrong options answer at once, and `command` has set how threads wait

    from serving.app import make_app
    from serving.engine import open_engine

    check(config)
    token = token_of(config)
    if token is None and not loopback(config.host):
        raise UserError(f"host={config.host} is not this machine alone: set {TOKEN} or token=FILE")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("firstplay").setLevel(logging.INFO)
    if config.threads:
        torch.set_num_threads(config.threads)
    print(f"loading {config.model}", flush=True)
    engine = open_engine(config.model, config.store, config.batch)
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=engine.reload, daemon=True).start())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again when all is answered
    app = make_app(engine, config, token)
    grace = int(config.timeout) + 1
    at: dict[str, Any] = {"host": config.host, "port": config.port, "server_header": False, "ws": "none"}
    at["http"] = partial(Connection, seconds=max(LEAST_SECONDS, config.timeout))
    settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=grace, **at)
    Server(settings, app).run()


class Server(uvicorn.Server):
    """uvicorn, which says where it listens, and refuses new requests as soon as it is told to end."""

    def __init__(self, config: uvicorn.Config, limits: Limits) -> None:
        super().__init__(config)
        self.limits = limits

    async def startup(self, sockets: Any = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if not self.should_exit:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"serving http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal to end."""
        self.limits.closing = True
        super().handle_exit(sig, frame)


def check(config: ServingConfig) -> None:
    """Raise UserError for numbers that are none."""
    for name in ("max_upload_mb", "max_minutes", "timeout", "max_requests", "batch", "decoders"):
        if not 0 < getattr(config, name) < 1e6:
            raise UserError(f"{name}={getattr(config, name):g} must be above 0")
    if config.max_upload_mb > MOST_MB:
        raise UserError(f"max_upload_mb={config.max_upload_mb:g}: decoders take at most {MOST_MB:g}")
    if not 0 <= config.port < 65536 or config.threads < 0 or config.watch_seconds < 0:
        raise UserError(f"port={config.port}, threads={config.threads}, watch_seconds={config.watch_seconds:g}: "
                        "a port, and numbers from 0 on")  # fmt: skip


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
