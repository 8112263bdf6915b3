"""The service's process: it opens the model and the store, listens, and ends at a signal."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import torch
import uvicorn

from artifacts.remote import RemoteFolder, is_remote
from configs.errors import UserError
from configs.options import SERVICE
from configs.serving import ServingConfig
from serving.app import make_app
from serving.connections import Connection
from serving.engine import Engine
from serving.limits import Limits

MINIMUM_SECONDS = 5.0  # for the head of a request
log = logging.getLogger("firstplay.serving")


def serve(config: ServingConfig, token: str | None) -> None:
    """Load the models and answer requests until a signal ends it."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("firstplay").setLevel(logging.INFO)
    if config.threads:
        torch.set_num_threads(config.threads)
    remote = RemoteFolder(config.model, SERVICE, Path(config.cache)) if is_remote(config.model) else None
    if remote is not None:
        remote.fetch()
    folder = config.model if remote is None else remote.copy
    engine = Engine(folder, config.store, config.batch, config.precision, config.follow)
    if remote is not None and config.watch_seconds:
        following = (config.watch_seconds, threading.Event(), log.error)
        threading.Thread(target=remote.follow, args=following, daemon=True).start()
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=reload, args=(engine, remote), daemon=True).start())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again when all is answered
    app = make_app(engine, config, token)
    grace = int(config.timeout) + 1
    at: dict[str, Any] = {"host": config.host, "port": config.port, "server_header": False, "ws": "none"}
    at["http"] = partial(Connection, seconds=max(MINIMUM_SECONDS, config.timeout))
    settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=grace, **at)
    Server(settings, app).run()


def reload(engine: Engine, remote: RemoteFolder | None) -> None:
    """What SIGHUP asks for."""
    try:
        if remote is not None:
            remote.fetch()
    except (UserError, OSError) as error:
        log.error("%s", error)
        return
    engine.reload()


class Server(uvicorn.Server):
    """uvicorn, which says where it listens, and refuses new requests after a signal to end."""

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
