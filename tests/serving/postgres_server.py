"""A PostgreSQL server of the tests' own, on loopback: Debian's, in a temporary folder, with its fsync on."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

PASSWORD = "p%40ss:word"  # "p@ss:word" in a URL: it must be seen nowhere


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs, of the newest version that is installed; else the test is skipped."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        pytest.skip(f"no PostgreSQL server: {name} is not found (Debian: apt-get install postgresql)")
    return path


class Server:
    """A running server; `folder` holds its data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0
        # PostgreSQL does not run as root; the folder is its user's
        name = next((user for user in ("postgres", "nobody") if user in [one.pw_name for one in pwd.getpwall()]), None)
        self.user = name if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(folder, self.user)
        (folder / "password").write_text("p@ss:word\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.run("initdb", "-D", folder / "data", "-U", "owner", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C",
                 f"--pwfile={folder / 'password'}")  # fmt: skip
        with (folder / "data" / "postgresql.conf").open("a") as options:
            options.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\nfsync = on\n"
                "max_connections = 60\nshared_buffers = 32MB\nsynchronous_commit = off\n"  # which a store puts right
            )
        self.start()

    def run(self, name: str, *arguments: str | Path) -> None:
        """Run one of the server's programs as its user."""
        rights = {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []} if self.user else {}
        command = [program(name), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, **rights)  # type: ignore[call-overload]  # fmt: skip
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.run("pg_ctl", "-D", self.folder / "data", "-w", "-s", "-l", self.folder / "log", "start")

    def stop(self, how: str = "fast") -> None:
        """Stop it; `immediate` is as after a power loss."""
        self.run("pg_ctl", "-D", self.folder / "data", "-w", "-s", "-m", how, "stop")

    def url(self, database: str) -> str:
        """The `store=` of a database."""
        return f"postgresql://owner:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of the tests' own, each statement for itself."""
        return psycopg.connect(self.url(database), autocommit=True)

    def place(self) -> str:
        """The `store=` of a new schema: made sooner than a database, and its transactions are not slower."""
        self.made += 1
        with self.connect() as connection:
            connection.execute(f"CREATE SCHEMA test_{self.made}".encode())
        return f"{self.url('postgres')}?options=-csearch_path%3Dtest_{self.made}"

    def database(self, options: str = "") -> str:
        """The `store=` of a new database."""
        self.made += 1
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE test_{self.made} {options}".encode())
        return self.url(f"test_{self.made}")


@contextmanager
def running() -> Iterator[Server]:
    """A server until the end of the block."""
    program("initdb")
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, which other users cannot enter
        server = Server(Path(folder))
        try:
            yield server
        finally:
            if (server.folder / "data" / "postmaster.pid").exists():
                server.stop("immediate")
