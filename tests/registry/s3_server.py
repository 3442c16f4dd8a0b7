"""An S3 server on loopback for tests: moto, one request at a time, in an environment of its own (see .ci/run).

python s3_server.py      prints its port; GET /_requests returns the requests since the last call, as JSON

moto checks ``If-None-Match`` first and stores the object later, so that two concurrent requests can both succeed. S3 decides at
once; hence the lock. The access key ``wrong`` is refused, and the bucket ``ignorant`` ignores conditions, as old servers do.
Of the requests to read from the bucket ``flaky``, 5% fail at random.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

DENIED = b"<Error><Code>InvalidAccessKeyId</Code><Message>The access key does not exist.</Message></Error>"
moto = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()
requests: list[str] = []
chance = random.Random(7)


def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/_requests":
        content, requests[:] = json.dumps(requests).encode(), []
        start_response("200 OK", [("Content-Type", "application/json")])
        return [content]
    requests.append(f"{environ['REQUEST_METHOD']} {path}")
    if "Credential=wrong/" in environ.get("HTTP_AUTHORIZATION", ""):
        start_response("403 Forbidden", [("Content-Type", "application/xml")])
        return [DENIED]
    if path.startswith("/flaky") and environ["REQUEST_METHOD"] == "GET" and chance.random() < 0.05:
        start_response("500 Internal Server Error", [])
        return []
    if path.startswith("/ignorant"):
        environ.pop("HTTP_IF_NONE_MATCH", None)
    with lock:
        return list(moto(environ, start_response))


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, serve, threaded=True)
    print(server.port, flush=True)
    server.serve_forever()
