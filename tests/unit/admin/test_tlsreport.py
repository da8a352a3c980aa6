"""qm tls-report: sessions are counted by domain, policy and failure, and told as RFC 8460 4.4 has it."""

from datetime import date
from typing import Final

from qm.admin import tlsreport
from qm.wire.logline import parse

DAY: Final = date(2026, 11, 23)
OK: Final = "tls domain=x.example policy=MTA-STS mx=mx.x.example ip=192.0.2.1 session=TLSv1.3 result=success"
BAD: Final = (
    "tls domain=x.example policy=MTA-STS-testing mx=mx.x.example ip=192.0.2.1 session=- result=starttls-not-supported"
)
DANE: Final = "tls domain=y.example policy=DANE mx=- ip=2001:db8::1 session=- result=tlsa-invalid"
OURS: Final = "tls domain=z.example policy=tlspolicy mx=z.example ip=192.0.2.3 session=TLSv1.3 result=success"


def _counted(*texts: str, domains: frozenset[str] = frozenset()) -> dict[str, list[dict[str, object]]]:
    found = [(number, parse(f"qm-remote: {text}".encode())) for number, text in enumerate(texts)]
    counted = tlsreport.count(found, domains)
    return {domain: tlsreport.report(domain, one, DAY, "me.example")["policies"] for domain, one in counted.items()}


def test_policies() -> None:
    """Successes and failures by policy; what only control/tlspolicy asked for is nobody's to report to."""
    found = _counted(OK, OK, BAD, DANE, DANE, BAD.replace("192.0.2.1", "192.0.2.2"), OURS, "warning: tls is odd")
    failure = {"result-type": "starttls-not-supported", "receiving-mx-hostname": "mx.x.example"}
    assert found == {
        "x.example": [
            {
                "policy": {"policy-type": "sts", "policy-domain": "x.example"},
                "summary": {"total-successful-session-count": 2, "total-failure-session-count": 2},
                "failure-details": [
                    failure | {"receiving-ip": "192.0.2.1", "failed-session-count": 1},
                    failure | {"receiving-ip": "192.0.2.2", "failed-session-count": 1},
                ],
            }
        ],
        "y.example": [
            {
                "policy": {"policy-type": "tlsa", "policy-domain": "y.example"},
                "summary": {"total-successful-session-count": 0, "total-failure-session-count": 2},
                "failure-details": [
                    {
                        "result-type": "tlsa-invalid",
                        "receiving-mx-hostname": "-",
                        "receiving-ip": "2001:db8::1",
                        "failed-session-count": 2,
                    }
                ],
            }
        ],
    }


def test_domains() -> None:
    """Only those that were asked for."""
    assert list(_counted(OK, DANE, domains=frozenset(("y.example",)))) == ["y.example"]
    assert _counted(OK, domains=frozenset(("nobody.example",))) == {}


def test_a_report() -> None:
    """What stands around the policies: who reports, on which day, and an ID that no other report has."""
    told = tlsreport.report("x.example", {}, DAY, "me.example")
    assert told == {
        "organization-name": "me.example",
        "date-range": {"start-datetime": "2026-11-23T00:00:00Z", "end-datetime": "2026-11-23T23:59:59Z"},
        "contact-info": "postmaster@me.example",
        "report-id": "2026-11-23.x.example@me.example",
        "policies": [],
    }


def test_bounds() -> None:
    """Kinds of failures are bounded, and the successes beside them go on to be counted."""
    texts = [BAD.replace("192.0.2.1", f"2001:db8::{n:x}") for n in range(tlsreport.DETAILS_MAX + 5)]
    (policy,) = _counted(*texts, OK)["x.example"]
    assert policy["summary"] == {
        "total-successful-session-count": 1,
        "total-failure-session-count": tlsreport.DETAILS_MAX,
    }
