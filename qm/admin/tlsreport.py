"""qm tls-report: how TLS went with the domains that ask for it, of one day, as RFC 8460 has it.

The data is what qm-remote logs of each session that DANE or MTA-STS had a say in.  The reports are printed and not
sent.  They name policies and hosts but not the policies' text, which was not logged.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

import click

from qm.admin import place
from qm.admin.logfiles import Line, lines
from qm.admin.screen import show
from qm.disk.control import Controls
from qm.errors import OK, Permanent

NOTHING: Final = 1
POLICIES_MAX: Final = 100_000  # of all domains; what comes after is not counted
DETAILS_MAX: Final = 1_000  # kinds of failures of one policy
KINDS: Final = {"DANE": "tlsa", "MTA-STS": "sts", "MTA-STS-testing": "sts"}  # RFC 8460 4.4, policy-type
_SUCCESS: Final = "success"
_DAY_S: Final = 86400


class _Failure(NamedTuple):
    result: str
    mx: str
    ip: str


class _Sessions:
    """With one domain, under one policy."""

    def __init__(self) -> None:
        self.successes = 0
        self.failures: Counter[_Failure] = Counter()

    def add(self, result: str, mx: str, ip: str) -> None:
        failure = _Failure(result, mx, ip)
        if result == _SUCCESS:
            self.successes += 1
        elif failure in self.failures or len(self.failures) < DETAILS_MAX:
            self.failures[failure] += 1

    def told(self, kind: str, domain: str) -> dict[str, Any]:
        summary = {
            "total-successful-session-count": self.successes,
            "total-failure-session-count": self.failures.total(),
        }
        details = [
            {
                "result-type": failure.result,
                "receiving-mx-hostname": failure.mx,
                "receiving-ip": failure.ip,
                "failed-session-count": count,
            }
            for failure, count in sorted(self.failures.items())
        ]
        told: dict[str, Any] = {"policy": {"policy-type": kind, "policy-domain": domain}, "summary": summary}
        return told | {"failure-details": details} if details else told


def count(found: Iterable[Line], domains: frozenset[str]) -> dict[str, dict[str, _Sessions]]:
    """Sessions by domain and type of policy; *domains*, in lower case, or all if that is empty."""
    counted: dict[str, dict[str, _Sessions]] = {}
    known = 0
    for _, entry in found:
        if (entry.program, entry.event) != ("qm-remote", "tls"):
            continue
        words = {name: str(value) for name, value in entry.fields.items()}
        domain, kind = words["domain"], KINDS.get(words["policy"])
        if kind is None or (domains and domain not in domains):
            continue
        policies = counted.get(domain, {})
        if kind not in policies:
            known += 1
            if known > POLICIES_MAX:
                continue
            policies = counted.setdefault(domain, policies)
            policies[kind] = _Sessions()
        policies[kind].add(words["result"], words["mx"], words["ip"])
    return counted


def report(domain: str, policies: dict[str, _Sessions], day: date, me: str) -> dict[str, Any]:
    """The report for *domain* (RFC 8460 4.4)."""
    return {
        "organization-name": me,
        "date-range": {"start-datetime": f"{day}T00:00:00Z", "end-datetime": f"{day}T23:59:59Z"},
        "contact-info": f"postmaster@{me}",
        "report-id": f"{day}.{domain}@{me}",
        "policies": [sessions.told(kind, domain) for kind, sessions in sorted(policies.items())],
    }


def _day(context: click.Context, parameter: click.Parameter, value: str | None) -> date:
    """Yesterday, unless something else is said."""
    if value is None:
        return datetime.now(UTC).date() - timedelta(days=1)
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter("a day like 2026-11-24, in UTC") from error


@click.command("tls-report", short_help="how TLS went with domains that ask for it")
@place.home_option
@click.option("--day", metavar="DAY", callback=_day, help="of this day in UTC, like 2026-11-24; by default yesterday")
@click.argument("domains", metavar="[DOMAIN ...]", nargs=-1)
def command(home: str, day: date, domains: tuple[str, ...]) -> int:
    """Print the TLS reports (RFC 8460) of a day, a line each; the exit code is 1 if there is nothing to report."""
    folder = os.path.join(home, "log")
    if not os.path.isdir(folder):
        raise Permanent(f"{home} has no log directory", detail="reports are made of what is logged there")
    os.chdir(home)
    me = Controls(()).me().decode("ascii", "backslashreplace")
    begins_s = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    ends_ns = (begins_s + _DAY_S) * 1_000_000_000
    of_day = (line for line in lines(folder, begins_s * 1_000_000_000) if line[0] < ends_ns)
    counted = count(of_day, frozenset(domain.lower() for domain in domains))
    for domain, policies in sorted(counted.items()):
        show(json.dumps(report(domain, policies, day, me), separators=(",", ":")))
    return OK if counted else NOTHING
