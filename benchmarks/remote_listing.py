"""Time and memory of listing a bucket of a million keys, which does not fit on the disk.

python benchmarks/remote_listing.py [KEYS]

A server on loopback answers as S3 does, a thousand keys a page; every object claims 10 MB. The command ends before it
downloads anything.
"""

from __future__ import annotations

import os
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import perf_counter
from urllib.parse import parse_qs, urlsplit

from automl_tl.data import open_source
from automl_tl.errors import ResourceError
from automl_tl.runtime.threads import peak_mib

PAGE = 1000
NUM_CLASSES = 10
NUM_KEYS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000


class Listing(BaseHTTPRequestHandler):
    """Answers ListObjectsV2."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the page that the token names."""
        start = int(parse_qs(urlsplit(self.path).query).get("continuation-token", ["0"])[0])
        end = min(start + PAGE, NUM_KEYS)
        rows = "".join(
            f"<Contents><Key>images/class{number * NUM_CLASSES // NUM_KEYS}/photo-{number:08}.jpg</Key><Size>10000000</Size>"
            f'<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"{number:032x}"</ETag></Contents>'
            for number in range(start, end)
        )
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{end}</NextContinuationToken>" if end < NUM_KEYS else ""
        content = f"<ListBucketResult>{more}{rows}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def main() -> None:
    """Print what was measured."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Listing)
    Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "secret", "TL_HOME": tempfile.mkdtemp()}
    before_mib, start_s = peak_mib() or 0, perf_counter()
    try:
        open_source("s3://bucket/images")
    except ResourceError as error:
        print(error)
    seconds = perf_counter() - start_s
    print(f"{NUM_KEYS:,} keys: {seconds:.1f} s, {(peak_mib() or 0) - before_mib:,} MiB")


if __name__ == "__main__":
    main()
