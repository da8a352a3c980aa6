"""What testssl.sh, a scanner of another maker's, finds in each kind of listener that has TLS.

Certificates are not graded: they are the test's own.  Two are shown, since ciphers and attacks depend on their keys:
RSA to who calls us by name, ECDSA to who does not.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.harness.suite import HOST, Suite

SCAN_S: Final = 240  # ten times what the four take together on two cores
SECTIONS: Final = ("-p", "-P", "-f", "-U")  # protocols, the server's preference, forward secrecy, attacks
OPTIONS: Final = (
    *("--quiet", "--color=0", "--warnings=off"),  # "off": it waits for nobody to say yes
    *("--nodns=none", f"--ip={HOST}", "--connect-timeout=20", "--openssl-timeout=20"),
)
FAILED: Final = 200  # testssl(1): below are counts of what it could not tell; Debian's OpenSSL has no RC4, no SSLv3


class Listener(NamedTuple):
    service: str
    starttls: str  # the protocol, as testssl names it; empty where TLS is there from the first byte
    name: str  # what the scanner calls us


LISTENERS: Final = (
    Listener("submits", "", "localhost"),
    Listener("smtp", "smtp", "localhost"),
    Listener("pop3s", "", HOST),
    Listener("pop3", "pop3", HOST),
)
PROTOCOLS: Final = {
    "SSLv2": "not offered",
    "SSLv3": "not offered",
    "TLS1": "not offered",
    "TLS1_1": "not offered",
    "TLS1_2": "offered",
    "TLS1_3": "offered with final",
}
GOOD: Final = (
    *("cipher_order", "PFS", "heartbleed", "CCS", "ROBOT", "secure_renego", "secure_client_renego", "CRIME_TLS"),
    *("POODLE_SSL", "fallback_SCSV", "SWEET32", "FREAK", "DROWN", "LOGJAM", "BEAST", "RC4"),
)
HARMLESS: Final = ("OK", "INFO", "DEBUG")
# "potentially vulnerable", of any CBC cipher; SECURITY.md says why ours stay, and that OpenSSL's take constant time
KNOWN: Final = {"LUCKY13": "LOW"}
OWN: Final = "engine_problem"  # a warning about the scanner's own OpenSSL


def _installed(suite: Suite) -> None:
    """As `qm install` has it, one address gets half of the connections; and an RSA certificate for localhost."""
    services = suite.home / "services"
    text = services.read_text()
    services.write_text(text.replace(" -c 100 ", " -c 100 -C 50 ").replace(" -c 40 ", " -c 40 -C 20 "))
    path = suite.home / "control/servercerts/localhost.pem"
    path.parent.mkdir(exist_ok=True)
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"]
    subprocess.run([*words, "-keyout", path, "-out", f"{path}.chain"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.chain").read_text())
    path.chmod(0o600)


def _scan(suite: Suite, listener: Listener, report: Path) -> subprocess.Popen[bytes]:
    words = ["testssl", *OPTIONS, *SECTIONS, f"--jsonfile={report}"]
    words += [f"--starttls={listener.starttls}"] if listener.starttls else []
    words.append(f"{listener.name}:{suite.port(listener.service)}")
    env = {"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": str(suite.home), "LC_ALL": "C", "TERM": "dumb"}
    with report.with_suffix(".txt").open("wb") as output:
        return subprocess.Popen(words, env=env, cwd=suite.home, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def _judge(rows: list[dict[str, str]], certificate: str) -> None:
    """Raises AssertionError with what is found."""
    found = {row["id"]: row for row in rows}
    assert {name: found[name]["finding"] for name in PROTOCOLS} == PROTOCOLS
    assert {name: found[name]["severity"] for name in GOOD if name in found} == dict.fromkeys(GOOD, "OK")
    bad = {row["id"]: row["severity"] for row in rows if row["severity"] not in HARMLESS and row["id"] != OWN}
    assert bad == KNOWN, rows
    ciphers = [word for row in rows if row["id"].startswith("cipherorder_TLSv1_2") for word in row["finding"].split()]
    assert ciphers and all(word.startswith(f"ECDHE-{certificate}-") for word in ciphers), ciphers


@pytest.mark.needs("testssl", "openssl")
def test_testssl(make_suite: Callable[[], Suite], tmp_path: Path) -> None:
    """Only TLS 1.2 and 1.3, on 465, 25, 995 and 110; no attack that it knows works; it remarks on nothing but CBC."""
    suite = make_suite()
    _installed(suite)
    suite.start()
    scans = [_scan(suite, listener, tmp_path / f"{listener.service}.json") for listener in LISTENERS]
    try:
        codes = [scan.wait(SCAN_S) for scan in scans]
    finally:
        for scan in scans:
            scan.kill()
            scan.wait()
    for listener, code in zip(LISTENERS, codes, strict=True):
        report = tmp_path / f"{listener.service}.json"
        assert 0 <= code < FAILED, (listener, report.with_suffix(".txt").read_text())
        _judge(json.loads(report.read_text()), "RSA" if listener.name == "localhost" else "ECDSA")
