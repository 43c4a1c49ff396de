"""Known vulnerabilities of the versions in constraints.txt, by pip-audit: `python .ci/audit.py`.

Asks OSV (or the service whose URL is given). Where that cannot be reached it says so in a line and
ends well: a check needs an answer, not a network.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

OSV = "https://api.osv.dev/v1/query"
REACH_TIMEOUT_S = 5
AUDIT_TIMEOUT_S = 300
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def main(service: str = OSV) -> int:
    if reason := unreachable(service):
        return skipped(service, reason)
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", str(CONSTRAINTS)),
        # Every version is exact: nothing has to be resolved or installed.
        *("--no-deps", "--disable-pip", "--vulnerability-service", "osv", "--osv-url", service),
        *("--progress-spinner", "off", "--timeout", "15", "--format", "json"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_TIMEOUT_S)
        found = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return skipped(service, f"no answer within {AUDIT_TIMEOUT_S} s")
    except ValueError:  # it found nothing out, and says why
        return skipped(service, (done.stderr.strip().splitlines() or ["no answer"])[-1])
    bad = [(one, flaw) for one in found for flaw in one.get("vulns", [])]
    for one, flaw in bad:
        mended = ", ".join(flaw["fix_versions"]) or "none yet"
        print(f"audit: {one['name']} {one['version']}: {flaw['id']}; mended in: {mended}")
    print(f"audit: {len(found)} packages, {len(bad)} known vulnerabilities")
    return 1 if bad else 0


def unreachable(service: str) -> str:
    """Why the service does not answer; empty when it does, whatever it says."""
    try:
        with urllib.request.urlopen(service, timeout=REACH_TIMEOUT_S):
            return ""
    except urllib.error.HTTPError:
        return ""
    except OSError as problem:
        return str(getattr(problem, "reason", problem))


def skipped(service: str, reason: str) -> int:
    print(f"audit: skipped, {service} cannot be asked: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
