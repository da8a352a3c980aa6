"""What install writes and tells."""

import pytest

from qm.admin import texts
from qm.admin.accounts import Names
from qm.supervise.policy import parse


@pytest.mark.parametrize(
    ("host", "domain", "plus"),
    [
        ("mail.example.org", "example.org", "example.org"),
        ("example.org", "example.org", "example.org"),
        ("a.b.example.org", "b.example.org", "example.org"),
    ],
)
def test_control_files_are_config_fasts(host: str, domain: str, plus: str) -> None:
    """The host without its first label is defaultdomain, its last two labels are plusdomain, where it has three."""
    files = {"me": host, "defaultdomain": domain, "plusdomain": plus, "locals": host, "rcpthosts": host}
    assert texts.control_files(host) == files


def test_services_can_be_parsed() -> None:
    """The services file is one for qm-supervise; smtpd has its role, and POP3 takes nothing in clear."""
    parsed = parse(texts.services("mail.example.org", Names("mx")).encode())
    services = {service.name: service.argv for service in parsed}
    assert {service.name for service in parsed if (b"FORCETLS", b"") in service.env} == {"submit", "pop3"}
    assert list(services) == ["start", "tls", "smtp", "submit", "submits", "pop3s", "pop3"]
    smtp, pop3 = services["smtp"], services["pop3"]
    assert smtp[smtp.index(b"-u") + 1 : smtp.index(b"-u") + 4] == (b"mxd", b"-g", b"mxd")
    assert smtp[-3:] == (b"0", b"25", b"qm-smtpd")
    assert pop3[pop3.index(b"110") - 1] == b"0"


def test_one_address_cannot_take_all_connections() -> None:
    """Each service that the world reaches has room for others when one address has all that it may have."""
    services = parse(texts.services("mail.example.org", Names("mx")).encode())
    public = [service.argv for service in services if b"0" in service.argv]
    assert len(public) == 5
    for argv in public:
        assert 2 * int(argv[argv.index(b"-C") + 1]) <= int(argv[argv.index(b"-c") + 1])


def test_aliases() -> None:
    """Mail for root goes where it was said, else into the aliases' Maildir; the others follow it."""
    assert texts.aliases("ann@example.org")[".qmail-root"] == "&ann@example.org\n"
    assert texts.aliases("")[".qmail-root"] == "./Maildir/\n"
    assert texts.aliases("")[".qmail-postmaster"] == texts.aliases("")[".qmail-mailer-daemon"] == "&root\n"


def test_public_addresses() -> None:
    """Only what the world can reach goes into DNS."""
    given = [b"127.0.0.1", b"10.1.2.3", b"93.184.216.34", b"::1", b"fe80::1", b"2606:2800:220:1::1"]
    assert texts.public_addresses(given) == ["2606:2800:220:1::1", "93.184.216.34"]


def test_next_steps() -> None:
    """DNS records for the host (MX, A, AAAA, PTR, SPF), firewall, start, and who reads root's mail."""
    said = texts.next_steps(
        "mail.example.org", "/var/qm", ["93.184.216.34"], has_unit="qm.service", root="", has_sendmail=True
    )
    for line in (
        "mail.example.org.  A  93.184.216.34",
        "mail.example.org.  MX  10 mail.example.org.",
        'mail.example.org.  TXT  "v=spf1 mx -all"',
        "34.216.184.93.in-addr.arpa.  PTR  mail.example.org.",
        "Firewall: port 25",
        "systemctl enable --now qm.service",
        "/var/qm/bin/qm replace-sendmail",
        "/var/qm/bin/qm install mail.example.org --postmaster ADDRESS",
    ):
        assert line in said
    without = texts.next_steps("mail.example.org", "/var/qm", [], has_unit="", root="ann", has_sendmail=False)
    assert "mail.example.org.  A  ADDRESS" in without
    assert "/var/qm/rc start" in without
    assert "replace-sendmail" not in without
    assert "--postmaster" not in without


def test_the_unit_is_the_homes() -> None:
    """Every path of the unit leads into the home."""
    template = "ExecStart=/var/qm/rc run\nExecReload=/var/qm/rc reload\n"
    assert texts.unit(template, "/srv/mail") == "ExecStart=/srv/mail/rc run\nExecReload=/srv/mail/rc reload\n"
