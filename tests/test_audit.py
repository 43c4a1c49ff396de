"""The audit of `make lint`, against a small OSV of our own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import ROOT

AUDIT = ROOT / ".ci" / "audit.py"
FLAW = {
    "id": "PYSEC-0000-1",
    "summary": "made up",
    "affected": [
        {
            "package": {"name": "pyyaml", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


class Osv(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        vulns = {"vulns": [FLAW]} if asked["package"]["name"] in self.server.bad else {}  # type: ignore[attr-defined]
        content = json.dumps(vulns).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *told: object) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        server.bad = set()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def audit(url: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(AUDIT), url],
        capture_output=True,
        text=True,
        env={"HOME": str(cache), "XDG_CACHE_HOME": str(cache)},
    )


def test_without_a_network_it_says_so_in_a_line_and_ends_well(tmp_path: Path) -> None:
    done = audit("http://127.0.0.1:9/v1/query", tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("audit: skipped, http://127.0.0.1:9/v1/query cannot be asked: ")
    assert done.stdout.count("\n") == 1


def test_a_known_vulnerability_of_a_pinned_version_fails(
    osv: ThreadingHTTPServer, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{osv.server_port}/v1/query"
    done = audit(url, tmp_path)
    assert (done.returncode, done.stdout.endswith(" packages, 0 known vulnerabilities\n")) == (
        0,
        True,
    )
    osv.bad = {"pyyaml"}  # type: ignore[attr-defined]
    done = audit(url, tmp_path)
    assert done.returncode == 1
    assert "audit: pyyaml 6.0.3: PYSEC-0000-1; mended in: 99.1\n" in done.stdout
