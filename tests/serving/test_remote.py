"""A service folder in an object store: moto's S3 server, which checks credentials too, and the real service."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from artifacts import remote
from artifacts.folders import write_manifest
from artifacts.remote import RemoteFolder, inside, of_files
from configs.errors import UserError

moto_server = pytest.importorskip("moto.server", reason="the S3 server of these tests: extra dev")
BUCKET = "models"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """HOST:PORT of an S3 server."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def upload(address: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], str]:
    """`upload(folder, name)` puts a folder into the bucket, in the place of what is there; gives its address."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    system = fs.S3FileSystem(endpoint_override=address, scheme="http", allow_bucket_creation=True)
    system.create_dir(BUCKET)

    def put(folder: Path, name: str) -> str:
        fs.copy_files(str(folder), f"{BUCKET}/{name}", destination_filesystem=system)
        return uri(address, name)

    return put


def uri(address: str, name: str, bucket: str = BUCKET) -> str:
    return f"s3://{bucket}/{name}?endpoint_override={address}&scheme=http"


def made(folder: Path, **files: str) -> Path:
    """A small folder that says it is a service folder."""
    (folder / "deep").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / "deep" / name).write_text(text)
    write_manifest(folder, "service", {"files": of_files(folder), "labels": ["ä"]})
    return folder


def test_a_folder_comes_whole_and_then_what_has_changed(
    upload: Callable[[Path, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made(tmp_path / "source", one="1", two="22")
    at = RemoteFolder(upload(source, "a/service"), "service", tmp_path / "cache")
    assert at.copy.name.startswith("service-") and at.fetch() and not at.fetch()
    files = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert {path.relative_to(at.copy): path.read_bytes() for path in at.copy.rglob("*") if path.is_file()} == files
    before, sent = at.copy.stat().st_ino, []
    real = RemoteFolder._download
    monkeypatch.setattr(RemoteFolder, "_download", lambda self, *a: (sent.append(a[1]), real(self, *a)))
    upload(made(source, one="1", two="other"), "a/service")
    assert at.fetch() and sent == [f"{BUCKET}/a/service/deep/two"] and at.copy.stat().st_ino != before
    assert (at.copy / "deep" / "two").read_text() == "other" and (at.copy / "deep" / "one").read_text() == "1"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [at.copy.name], "nothing is left over"


def test_what_is_not_whole_is_refused_and_the_copy_stays(upload: Callable[[Path, str], str], tmp_path: Path) -> None:
    """A folder that is uploaded just now: its manifest is older or newer than its files."""
    source = made(tmp_path / "source", one="1")
    at = RemoteFolder(upload(source, "b"), "service", tmp_path / "cache")
    at.fetch()
    before = json.loads((source / "manifest.json").read_text())["files"]
    (source / "deep" / "one").write_text("2")
    for files, told in ((before | {"deep/three": "0" * 16}, "is missing"), ({"deep/one": "0" * 16}, "is not the file")):
        write_manifest(source, "service", {"files": files})
        upload(source, "b")
        with pytest.raises(UserError, match=told) as error:
            at.fetch()
        assert "\n" not in str(error.value) and (at.copy / "deep" / "one").read_text() == "1"
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_names_that_lead_out_of_the_folder_are_refused(upload: Callable[[Path, str], str], tmp_path: Path) -> None:
    names = ("a", "a/b.npy", "/a", "../a", "a/../../b", "", "a\\b", 3)
    assert [name for name in names if inside(name)] == ["a", "a/b.npy"]
    source = made(tmp_path / "source", one="1")
    for number, files in enumerate(({"../../evil": "0" * 16}, None)):
        write_manifest(source, "service", {"files": files})
        with pytest.raises(UserError, match="names no files"):
            RemoteFolder(upload(source, f"evil{number}"), "service", tmp_path / "cache").fetch()
    write_manifest(source, "index", {"files": {}})
    with pytest.raises(UserError, match="is no service folder"):
        RemoteFolder(upload(source, "other"), "service", tmp_path / "cache").fetch()


def test_what_cannot_be_read_is_one_line(
    upload: Callable[[Path, str], str], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such bucket, key, server or scheme, and wrong credentials."""
    here = upload(made(tmp_path / "source", one="1"), "c")

    def error(of: str) -> str:
        with pytest.raises(UserError) as caught:
            RemoteFolder(of, "service", tmp_path / "cache").fetch()
        assert "\n" not in str(caught.value) and of.partition("?")[0] in str(caught.value)
        return str(caught.value)

    assert "no manifest.json" in error(uri(address, "nowhere"))
    assert "NO_SUCH_BUCKET" in (told := error(uri(address, "c", "no-such-bucket"))) or "no manifest.json" in told
    assert "check its address" in error(uri("127.0.0.1:9", "c"))
    assert "no address of an object store" in error("nothing://models/c")
    secure(address, "0")
    try:
        assert "credentials" in error(here) and "testing" not in error(here).partition("?")[2].partition(" ")[2]
    finally:
        secure(address, "inf")
    assert not (tmp_path / "cache").exists()


def secure(address: str, requests: str) -> None:
    """From how many requests on moto asks who sends them."""
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"http://{address}/moto-api/reset-auth", requests.encode(), headers)
    urllib.request.urlopen(request).close()


def test_a_service_takes_a_new_version_over(
    upload: Callable[[Path, str], str],
    service_folder: Path,
    serve: Callable[..., Any],
    tmp_path: Path,
) -> None:
    source = Path(shutil.copytree(service_folder, tmp_path / "service"))
    at = upload(source, "live")
    options = (f"cache={tmp_path}/cache", "watch_seconds=0.2")
    with serve(at, tmp_path / "store", *options) as service, service.client() as client:
        assert client.get("/songs/s00001/audience").status_code == 200
        first = client.get("/readyz").json()["model"]
        manifest = json.loads((source / "manifest.json").read_text())
        del manifest["kind"]
        write_manifest(source, "service", manifest | {"labels": [*manifest["labels"][1:], manifest["labels"][0]]})
        upload(source, "live")
        for _ in range(300):
            if client.get("/readyz").json()["model"] != first:
                break
            time.sleep(0.2)
        else:
            raise AssertionError(client.get("/readyz").text)
        assert client.get("/songs/s00001/audience").status_code == 200
    assert remote.is_remote(at) and not remote.is_remote(str(source))
