"""A small hub on loopback: what `huggingface_hub` needs of the real one to push and to pull.

Models live in memory. Large files go by Git LFS there, as on the real hub; the others stand in the
commit itself.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_correcthorsebatterystaple"
COMMIT = "a" * 40


def environment() -> dict[str, str]:
    """What says where the hub is, for a process that is forked from one without it."""
    return {name: value for name, value in os.environ.items() if name.startswith("HF_")}


class Hub:
    """The address, and files by model and path."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.models: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Nothing; the tests look at what came."""

    def do_POST(self) -> None:
        """Create a model, ask how files are to come, or commit them."""
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._reply(401, {"error": "Invalid username or password."})
            return
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            owner = asked.get("organization") or "somebody"
            name = f"{owner}/{asked['name'].split('/')[-1]}"
            self.hub.models.setdefault(name, {})
            self.hub.private[name] = "private" in (
                asked.get("visibility"),
                asked.get("private") and "private",
            )
            self._reply(200, {"url": f"{self.hub.address}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self._reply(200, {"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._reply(200, {"files": files})
        elif found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", self.path):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.hub.address}/blob/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            self._reply(200, {"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            self._commit(found[1], body)
        else:
            self._reply(404, {"error": "not here"})

    def do_PUT(self) -> None:
        """A large file."""
        content = self._body()
        digest = hashlib.sha256(content).hexdigest()
        assert self.path == f"/blob/{digest}"
        self.hub.blobs[digest] = content
        self._reply(200, {})

    def do_GET(self) -> None:
        """What is there, or a file of it."""
        self._get(with_body=True)

    def do_HEAD(self) -> None:
        """The headers of a file."""
        self._get(with_body=False)

    def _get(self, *, with_body: bool) -> None:
        self.hub.requests.append(self.path)
        path = self.path.partition("?")[0]
        if path == "/api/whoami-v2":
            self._reply(200, {"name": "somebody", "type": "user", "orgs": []})
            return
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/.+)?", path)
        if found and found[1] in self.hub.models:
            self._reply(200, self._describe(found[1]))
            return
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/.+", path):
            files = self.hub.models.get(found[1], {})
            self._reply(200, [_entry(name, content) for name, content in files.items()])
            return
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            content = self.hub.models.get(found[1], {}).get(found[2])
            if content is not None:
                headers = {
                    "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                    "X-Repo-Commit": COMMIT,
                }
                self._send(200, content if with_body else b"", headers, length=len(content))
                return
        self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _describe(self, name: str) -> dict[str, Any]:
        siblings = [{"rfilename": file} for file in self.hub.models[name]]
        return {
            "_id": "1",
            "id": name,
            "modelId": name,
            "sha": COMMIT,
            "siblings": siblings,
            "private": self.hub.private[name],
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }

    def _commit(self, name: str, body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                assert value["encoding"] == "base64"
                self.hub.models[name][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.hub.models[name][value["path"]] = self.hub.blobs[value["oid"]]
        place = f"{self.hub.address}/{name}/commit/{COMMIT}"
        self._reply(200, {"success": True, "commitOid": COMMIT, "commitUrl": place})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _reply(self, status: int, value: object) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content),
            "oid": hashlib.sha1(content).hexdigest()}  # fmt: skip


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub that runs until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    found = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"hub": found})
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
