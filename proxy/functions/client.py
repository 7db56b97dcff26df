"""Asks the API over HTTP, for the command line: standard library, one connection a request."""

from __future__ import annotations

import base64
import http.client
import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GATEWAY = "http://127.0.0.1:8080"
AUTH_FILE = "var/openfaas-auth"
TIMEOUT_S = 70.0


class Failed(Exception):
    """What to tell the user; status 0: nobody answered."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Client:
    """gateway: an http or https URL. auth: a file with USER:PASSWORD; "" asks without."""

    def __init__(self, gateway: str, auth: str) -> None:
        self.gateway = gateway if "//" in gateway else f"http://{gateway}"
        self._url = urlsplit(self.gateway)
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise Failed(f'"{gateway}" is no address of a gateway')
        self._credentials = read_credentials(auth)

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        is_system: bool = True,
        timeout_s: float | None = TIMEOUT_S,
    ) -> http.client.HTTPResponse:
        """Raises Failed when nobody answers."""
        url = self._url
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        link = kind(url.hostname or "", url.port, timeout=timeout_s)
        given = dict(headers or {})
        if is_system and self._credentials:
            given["Authorization"] = f"Basic {self._credentials}"
        try:
            link.request(method, url.path.rstrip("/") + path, body, given)
            return link.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{self.gateway} does not answer: {error}") from None

    def ask(self, method: str, path: str, said: Any = None, **query: str) -> Any:
        """JSON there and back. Raises Failed."""
        text = urlencode({key: value for key, value in query.items() if value})
        body = json.dumps(said).encode() if said is not None else b""
        headers = {"Content-Type": "application/json"} if said is not None else {}
        answer = self.send(method, path + (f"?{text}" if text else ""), body, headers)
        data = answer.read()
        if answer.status >= 300:
            raise Failed(why(answer, data), answer.status)
        is_json = answer.headers.get_content_type() == "application/json"
        if method == "GET" and not is_json:
            raise Failed(f"{self.gateway} answers no JSON: has it a server with openfaas_api on?")
        return json.loads(data) if data and is_json else None

    def lines(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """JSON objects, a line each, until the other side ends."""
        text = urlencode({key: value for key, value in query.items() if value})
        answer = self.send("GET", f"{path}?{text}", timeout_s=None)
        if answer.status >= 300:
            raise Failed(why(answer, answer.read()), answer.status)
        for line in answer:
            if line.strip():
                yield json.loads(line)


def why(answer: http.client.HTTPResponse, data: bytes) -> str:
    """The error as a sentence."""
    text = data[:2000].decode("utf-8", "replace").strip()
    if answer.status == 401:
        return f"{text or 'unauthorized'} (name the file with USER:PASSWORD by --auth)"
    if not text or answer.headers.get_content_type() == "text/html":
        return f"the gateway answers {answer.status} {answer.reason}"
    return text


def read_credentials(path: str) -> str:
    """For the Authorization field; "" without a file. Raises Failed."""
    if not path:
        return ""
    try:
        with open(path, "rb") as file:
            return base64.b64encode(file.read(4096).strip()).decode()
    except OSError as error:
        raise Failed(f'"{path}" cannot be read: {error.strerror}') from None


def default_auth() -> str:
    found = os.environ.get("HEADRACE_AUTH", "")
    return found or (AUTH_FILE if os.access(AUTH_FILE, os.R_OK) else "")


def segment(text: str) -> str:
    return quote(text, safe="")
