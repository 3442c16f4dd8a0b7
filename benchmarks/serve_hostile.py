"""2,000 hostile requests to a running server: every answer must be 4xx, and the server must answer properly afterwards.

    python -m benchmarks.serve_hostile http://127.0.0.1:8000 IMAGE [--number 2000] [--seed 0]

Truncated and corrupted images, bombs, wrong types, malformed JSON and tensors, broken HTTP, huge headers, slow senders.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import socket
import struct
import sys
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

Make = Callable[[random.Random, bytes], bytes]
HOST = b"Host: localhost\r\n"
SLOW_SHARE = 0.02  # of the requests
TIMEOUT_S = 90.0


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a request."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"POST {path} HTTP/1.1\r\n".encode() + HOST + f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def infer(value: object, *headers: str) -> bytes:
    """Return a request of the Open Inference Protocol to the model ``MODEL``, which is replaced."""
    return post("/v2/models/MODEL/infer", json.dumps(value).encode(), *headers)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def truncated(rng: random.Random, image: bytes) -> bytes:
    """The first part of a good image."""
    return post("/", image[: rng.randrange(1, len(image) * 3 // 4)])


def noise(rng: random.Random, image: bytes) -> bytes:
    """Random bytes, some after the first bytes of a good image."""
    start = image[: rng.choice([0, 0, 4, 12])]
    return post(rng.choice(["/", "/api/predict"]), start + rng.randbytes(rng.randrange(0, 5000)))


def bomb(rng: random.Random, image: bytes) -> bytes:
    """A small file that declares a huge image, or that inflates to one."""
    side = rng.choice([20_000, 60_000, 2**31 - 1])
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1_000_000))) + png_chunk(b"IEND", b"")
    gif = (
        b"GIF89a"
        + struct.pack("<HHBBB", 65_000, 65_000, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 65_000, 65_000, 0)
        + b"\x02\x02D\x01\x00;"
    )
    bmp = b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 65_000, 65_000, 1, 24, 0, 0, 0, 0, 0, 0)
    packed = zlib.compress(bytes(20_000_000))
    return rng.choice(
        [
            post("/", png),
            post("/", gif),
            post("/", bmp),
            post("/", packed, "Content-Encoding: deflate"),
            post("/", json.dumps({"inputs": base64.b64encode(png).decode()}).encode(), "Content-Type: application/json"),
            post("/", b"[" * 500_000, "Content-Type: application/json"),
            post("/", b'{"a":' * 200_000, "Content-Type: application/json"),
            infer({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(png).decode()]}]}),
            infer({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [10**18], "data": ["AAAA"]}]}),
        ]
    )


def wrong_type(rng: random.Random, image: bytes) -> bytes:
    """Something else than an image, or than the JSON that is expected."""
    good = base64.b64encode(image).decode()
    values = [None, 1, "x", [], {}, [good], {"inputs": None}, {"inputs": [good]}, {"inputs": good, "parameters": {"top_k": -1}}]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [good]}
    changes: dict[str, object] = rng.choice(
        [{"shape": [2]}, {"datatype": "FP32"}, {"name": "x"}, {"data": [1.5]}, {"data": {}}, {"shape": ["1"]}, {"shape": [-1]}]
    )
    pdf, elf, svg = b"%PDF-1.7\n", b"\x7fELF\x02\x01", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    form = b"--x\r\nContent-Disposition: form-data; name=f\r\n\r\n" + image + b"\r\n--x--"
    return rng.choice(
        [
            post("/", json.dumps(rng.choice(values)).encode(), "Content-Type: application/json"),
            post("/", image, "Content-Type: application/json"),
            post("/", rng.choice([b"", pdf, elf, svg, b"PK\x03\x04" + rng.randbytes(500)])),
            post("/", form, "Content-Type: multipart/form-data; boundary=x"),
            post("/api/predict?top_k=" + rng.choice(["x", "0", "-1", "1e9", "%00", "9" * 50]), image),
            infer({"inputs": [{**tensor, **changes}]}),
            infer(rng.choice(values)),
            infer({"inputs": [tensor]}, "Inference-Header-Content-Length: " + rng.choice(["-1", "5", "x", "9" * 30])),
        ]
    )


def broken_http(rng: random.Random, image: bytes) -> bytes:
    """Not HTTP, or not for this server."""
    paths = [
        "/../../etc/passwd",
        "/static/..%2f..%2fetc%2fpasswd",
        "/static/%00",
        "/v2/models/..%2f/infer",
        "/v2/models/x/versions/%2e%2e",
        "//x",
    ]
    return rng.choice(
        [
            f"GET {rng.choice(paths)} HTTP/1.1\r\n".encode() + HOST + b"\r\n",
            b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n",
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999\r\n\r\n",
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -5\r\n\r\n",
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
            b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
            b"POST / HTTP/1.1\r\n" + HOST + b"Origin: https://evil.example\r\nContent-Length: 1\r\n\r\na",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + rng.randbytes(200),
            b"GET / HTTP/9.9\r\n" + HOST + b"\r\n",
            bytes(rng.choices(range(33, 127), k=300)) + b"\r\n\r\n",
        ]
    )


def huge_headers(rng: random.Random, image: bytes) -> bytes:
    """Headers larger than any browser sends."""
    size = rng.choice([20_000, 100_000, 1_000_000])
    headers = rng.choice(
        [b"X: " + b"a" * size, b"".join(b"X%d: a\r\n" % one for one in range(size // 10)), b"Cookie: " + b"a=b;" * (size // 4)]
    )
    return b"GET / HTTP/1.1\r\n" + HOST + headers.rstrip() + b"\r\n\r\n"


KINDS: dict[str, Make] = {
    "truncated": truncated,
    "noise": noise,
    "bomb": bomb,
    "wrong type": wrong_type,
    "broken HTTP": broken_http,
    "huge headers": huge_headers,
}


def receive(client: socket.socket) -> str:
    """Return the status of an answer, or what happened instead."""
    try:
        head = client.recv(4096)
    except OSError as error:
        return type(error).__name__
    return head[9:12].decode() if head.startswith(b"HTTP/1.1 ") else "closed"


def send(address: tuple[str, int], data: bytes) -> str:
    """Send a request at once, and return the status of its answer."""
    with socket.create_connection(address, timeout=TIMEOUT_S) as client:
        with suppress(OSError):  # an answer may have come before the end
            client.sendall(data)
        return receive(client)


def send_slowly(address: tuple[str, int], start: bytes, rest: bytes) -> str:
    """Send ``start``, then a byte every half second until there is an answer, and return its status."""
    with socket.create_connection(address, timeout=0.5) as client:
        client.sendall(start)
        started_s = time.monotonic()
        for byte in rest:
            try:
                client.sendall(bytes([byte]))
                return receive_now(client)
            except TimeoutError:
                if time.monotonic() - started_s > TIMEOUT_S:
                    return "no answer"
            except OSError as error:
                return type(error).__name__
    return "sent"


def receive_now(client: socket.socket) -> str:
    """Return the status of an answer; raise ``TimeoutError`` if there is none yet."""
    head = client.recv(4096)
    return head[9:12].decode() if head.startswith(b"HTTP/1.1 ") else "closed"


def main() -> None:
    """Print the answers by kind; exit code 1 unless all are 4xx and the server answers afterwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("image", type=Path, help="a good JPEG or PNG")
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    url, rng, image = urlsplit(arguments.url), random.Random(arguments.seed), arguments.image.read_bytes()
    address = (url.hostname or "127.0.0.1", url.port or 80)
    model = json.loads(get(address, "/api/model"))["name"]
    buffer = io.BytesIO()
    Image.open(arguments.image).convert("RGB").save(buffer, "PNG")
    images = [image, buffer.getvalue()]

    num_slow = round(SLOW_SHARE * arguments.number)
    head = post("/", image)[: -len(image)]
    slow = [(b"GET / HTTP/1.1\r\n", b"X: " + b"a" * 500), (head, image)] * (num_slow // 2)
    fast = []
    for number in range(arguments.number - num_slow):
        kind = list(KINDS)[number % len(KINDS)]
        fast.append((kind, KINDS[kind](rng, rng.choice(images)).replace(b"MODEL", model.encode())))
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    with ThreadPoolExecutor(num_slow) as slow_pool, ThreadPoolExecutor(16) as pool:
        waiting = [slow_pool.submit(send_slowly, address, *parts) for parts in slow]
        for (kind, data), status in zip(fast, pool.map(lambda one: send(address, one[1]), fast), strict=True):
            answers[kind][status] += 1
            if not status.startswith("4"):
                print(f"{kind}: {status} for {data[:200]!r}", flush=True)
        for future in waiting:
            answers["slow sender"][future.result()] += 1
    for kind, statuses in answers.items():
        print(f"{kind:12s} {dict(sorted(statuses.items()))}")
    after = send(address, post("/", image))
    print(f"a good image afterwards: {after}")
    only_4xx = all(status.startswith("4") for statuses in answers.values() for status in statuses)
    sys.exit(0 if only_4xx and after == "200" else 1)


def get(address: tuple[str, int], path: str) -> bytes:
    """Return the body of an answer."""
    with socket.create_connection(address, timeout=TIMEOUT_S) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"Connection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")[2]


if __name__ == "__main__":
    main()
