"""Serves S3 on a free port of this machine, which it prints first; from memory, one request after the other.

moto compares an ETag and then changes the object: only as no request comes in between is that a compare-and-swap.
`/faults?count=2&status=503&effect=none` makes the next two PUTs fail with that status: without effect, with theirs
(`full`), or with that of somebody else's PUT which came first (`other`).
"""

from __future__ import annotations

import io
import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment


ANSWERS = {
    400: b"<Error><Code>ExpiredToken</Code><Token-0>told-by-the-service</Token-0></Error>",
    500: b"<Error><Code>InternalError</Code></Error>",
    503: b"<Error><Code>SlowDown</Code></Error>",
}


class Faults:
    """S3, and what makes it fail."""

    def __init__(self) -> None:
        application: Any = import_module("moto.moto_server.werkzeug_app")
        self.s3 = application.DomainDispatcherApplication(application.create_backend_app)
        self.count = 0
        self.status = 0
        self.effect = "none"

    def __call__(self, environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environment["PATH_INFO"] == "/faults":
            query = dict(parse_qsl(environment["QUERY_STRING"]))
            self.count, self.status = int(query["count"]), int(query["status"])
            self.effect = query["effect"]
        elif environment["REQUEST_METHOD"] != "PUT" or not self.count:
            whole: Iterable[bytes] = self.s3(environment, start_response)
            return whole
        else:
            self.count -= 1
            body = environment["wsgi.input"].read(int(environment["CONTENT_LENGTH"]))
            if self.effect == "other":
                body = body[:12] + bytes([body[12] ^ 1]) + body[13:]  # another version, and so another writer's
            if self.effect != "none":
                environment["wsgi.input"] = io.BytesIO(body)
                list(self.s3(environment, lambda *_: lambda _: None))
            answer = ANSWERS[self.status]
            start_response(f"{self.status} Fault", [("Content-Length", str(len(answer)))])
            return [answer]
        start_response("204 No Content", [])
        return [b""]


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server: Any = import_module("werkzeug.serving").make_server("127.0.0.1", 0, Faults())
    print(server.server_port, flush=True)  # noqa: T201  for the fixture that waits for it
    server.serve_forever()


if __name__ == "__main__":
    main()
