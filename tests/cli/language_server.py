"""A client of yaml-language-server, the program that editors ask about YAML files."""

import json
import subprocess
import time
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, Self

ANSWER = 30.0  # seconds; the server starts slowly on a busy machine


class LanguageServer:
    """Speaks the protocol over the pipes of the server's process."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._process = subprocess.Popen(
            [program, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder
        )
        self._messages: Queue[dict[str, Any]] = Queue()
        self._number = 0
        self._diagnostics: dict[str, list[Any]] = {}
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        root = folder.as_uri()
        settings = {"validate": True, "hover": True, "completion": True, "schemaStore": {"enable": False}}
        self._settings: dict[str, Any] = {"yaml": settings, "http": {}, "[yaml]": {}, "vs code": {}, "files": {}}
        capabilities = {
            "textDocument": {
                "completion": {"completionItem": {"snippetSupport": True, "documentationFormat": ["plaintext"]}},
                "hover": {"contentFormat": ["plaintext"]},
            },
            "workspace": {"configuration": True},
        }
        self._ask(
            "initialize",
            {
                "processId": None,
                "rootUri": root,
                "capabilities": capabilities,
                "workspaceFolders": [{"uri": root, "name": "shop"}],
            },
        )
        self._tell("initialized", {})
        self._tell("workspace/didChangeConfiguration", {"settings": self._settings})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(60)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def open(self, path: Path) -> list[dict[str, Any]]:
        """Open a file and return what is wrong with it."""
        uri = path.as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": path.read_text(encoding="utf-8")}
        self._tell("textDocument/didOpen", {"textDocument": document})
        deadline = time.monotonic() + ANSWER
        while uri not in self._diagnostics:
            self._handle(self._messages.get(timeout=max(0.1, deadline - time.monotonic())))
        return self._diagnostics[uri]

    def hover(self, path: Path, line: int, column: int) -> str:
        answer = self._ask("textDocument/hover", self._at(path, line, column))
        contents = (answer or {}).get("contents", "")
        return str(contents["value"] if isinstance(contents, dict) else contents)

    def complete(self, path: Path, line: int, column: int) -> dict[str, dict[str, Any]]:
        answer = self._ask("textDocument/completion", self._at(path, line, column))
        items = answer["items"] if isinstance(answer, dict) else answer or []
        return {item["label"]: item for item in items}

    def _at(self, path: Path, line: int, column: int) -> dict[str, Any]:
        return {"textDocument": {"uri": path.as_uri()}, "position": {"line": line, "character": column}}

    def _ask(self, method: str, parameters: dict[str, Any]) -> Any:
        self._number += 1
        number = self._number
        self._send({"id": number, "method": method, "params": parameters})
        deadline = time.monotonic() + ANSWER
        while True:
            try:
                message = self._messages.get(timeout=max(0.1, deadline - time.monotonic()))
            except Empty:
                raise TimeoutError(f"no answer to {method}") from None
            if message.get("id") == number and "method" not in message:
                return message.get("result")
            self._handle(message)

    def _tell(self, method: str, parameters: dict[str, Any]) -> None:
        self._send({"method": method, "params": parameters})

    def _handle(self, message: dict[str, Any]) -> None:
        method = message.get("method")
        if method == "textDocument/publishDiagnostics":
            self._diagnostics[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif "id" in message and method is not None:
            answer: Any = None
            if method == "workspace/configuration":
                sections = [item.get("section", "") for item in message["params"]["items"]]
                answer = [self._settings.get(section, {}) for section in sections]
            self._send({"id": message["id"], "result": answer})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._process.stdin.flush()

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while line := stream.readline():
            length = 0
            while line not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
                line = stream.readline()
            if length:
                self._messages.put(json.loads(stream.read(length)))
