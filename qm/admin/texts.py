"""What `qm install` writes, and what it tells to do next: texts made of values, nothing of the kernel."""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final

from qm.admin.accounts import Names
from qm.wire import hostcontrols

RULES: Final = """\
# Who may connect by SMTP, and who may send to everywhere (RELAYCLIENT).  After a change, here in this directory:
#     tcprules tcp.smtp.cdb tcp.smtp.tmp < tcp.smtp
127.:allow,RELAYCLIENT=""
::1:allow,RELAYCLIENT=""
:allow
"""
MAILDIR: Final = "./Maildir/\n"


def control_files(host: str) -> Mapping[str, str]:
    """The control files of *host*, as config-fast makes them (qmail.md section 19)."""
    return {**hostcontrols.single_lines(host), **dict.fromkeys(hostcontrols.LISTS, host)}


def aliases(root: str) -> Mapping[str, str]:
    """.qmail files of the aliases that every host must have; *root* reads them, or else alias/Maildir keeps them."""
    return {
        ".qmail-root": f"&{root}\n" if root else MAILDIR,
        ".qmail-postmaster": "&root\n",
        ".qmail-mailer-daemon": "&root\n",
    }


def services(host: str, names: Names) -> str:
    smtpd = names.user("qmaild"), names.group("qmaild")
    smtp = f"tcpserver -v -H -R -l {host} -b 128 -c 100 -C 50 -x tcp.smtp.cdb -u {smtpd[0]} -g {smtpd[1]} 0"
    pop3 = f"tcpserver -v -H -R -l {host} -b 128 -c 40 -C 20"
    popup = f"qm-popup {host} checkpassword qm-pop3d Maildir"
    return (
        "# What rc start runs, a line each: NAME: [VARIABLE=VALUE ...] COMMAND LINE.  Change it, then rc restart.\n"
        "start: qm-start ./Maildir/\n"
        "tls: qm-tlsd\n"
        "# -c: connections at once, of which -C may be of one address: so that nobody keeps all others out.\n"
        f"smtp: {smtp} 25 qm-smtpd\n"
        "# Your users send here, after a login under TLS.\n"
        f"submit: SUBMISSION= FORCETLS= {smtp} 587 qm-smtpd\n"
        f"submits: SUBMISSION= {smtp} 465 qm-tls smtp qm-smtpd\n"
        f"pop3s: {pop3} 0 995 qm-tls pop3 {popup}\n"
        f"pop3: FORCETLS= {pop3} 0 110 {popup}\n"
    )


def unit(template: str, home: str) -> str:
    """The systemd unit for *home*."""
    return template.replace("/var/qm/", f"{home}/")


def public_addresses(addresses: Iterable[bytes]) -> list[str]:
    """Those that the world can reach."""
    found = sorted((ipaddress.ip_address(address.decode("ascii").partition("%")[0]) for address in addresses), key=str)
    return [str(address) for address in found if address.is_global]


def _records(host: str, addresses: list[str]) -> list[str]:
    """DNS records, as lines of a zone file."""
    shown = addresses or ["ADDRESS"]
    pointers = [ipaddress.ip_address(address).reverse_pointer for address in addresses]
    return [
        *(f"{host}.  {'AAAA' if ':' in address else 'A'}  {address}" for address in shown),
        f"{host}.  MX  10 {host}.",
        f'{host}.  TXT  "v=spf1 mx -all"',
        *(f"{pointer}.  PTR  {host}." for pointer in pointers or ["ADDRESS-REVERSED.in-addr.arpa"]),
        "(the PTR record is made by whoever gave you the address)",
    ]


def next_steps(host: str, home: str, addresses: list[str], *, has_unit: str, root: str, has_sendmail: bool) -> str:
    """What install leaves to the administrator."""
    start = f"systemctl enable --now {has_unit}" if has_unit else f"{home}/rc start"
    lines = [
        "Now:",
        f"  1. DNS, so that mail finds {host} and others believe what it sends:",
        *(f"       {record}" for record in _records(host, addresses)),
        "     A domain whose mail comes here has an MX record too, and a line in control/locals and control/rcpthosts.",
        "  2. Firewall: port 25 from everywhere and to everywhere; 465, 587 and 995 for your users.",
        f"  3. Start it: {start}     (see it: {home}/rc status; what it says: {home}/log/current)",
        f"  4. PATH: {home}/bin has the programs.",
        "     A user who has no Maildir types: maildirmake ~/Maildir; echo ./Maildir/ >~/.qmail",
    ]
    if has_sendmail:
        lines.append(f"  5. Local programs send by /usr/sbin/sendmail: {home}/bin/qm replace-sendmail")
    lines.append(f"Nobody vouches for the certificate in {home}/control/servercert.pem: put a better one there,")
    lines.append("    chain and key in one file, mode 0600; it counts within a second.")
    if not root:
        lines.append(f"Mail for root, postmaster and mailer-daemon stays in {home}/alias/Maildir until you say")
        lines.append(f"    {home}/bin/qm install {host} --postmaster ADDRESS")
    return "\n".join(lines)
