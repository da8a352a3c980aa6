"""quickstart: make a private mail system, start it, show that a message goes in and comes out.

Usage:   bin/quickstart [--home DIR] [--smtp PORT] [--pop3 PORT] [--submit PORT] [--submits PORT] [--pop3s PORT]
         [--user NAME:PASSWORD] [--domain D]
Reads:   DIR/services, DIR/login
Writes:  everything below DIR
As:      root, or whoever tries it
Exits:   0 it runs; 1 it does not, and one line says why; 2 usage
See:     README.md

A second run uses what is there: it installs nothing, and a suite that runs goes on running.
"""

import argparse
import os
import re
import secrets
import time
from collections.abc import Sequence
from typing import Final

from qm.errors import QmError
from qm.quickstart import demo, home
from qm.quickstart.demo import HOST, Login, NoDemonstration
from qm.quickstart.home import Ports
from qm.quickstart.running import DEFAULT, Failed, start
from qm.unix import privs

LOGIN: Final = "login"  # the last mailbox and its password, for the next run; its owner's alone
_PORTS: Final = {
    "smtp": "SMTP port",
    "pop3": "POP3 port",
    "submit": "port for SMTP of mail programs, with STARTTLS",
    "submits": "port for the same, with TLS from the first byte",
    "pop3s": "port for POP3 with TLS from the first byte",
}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,30}")
_DOMAIN: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def _login(text: str) -> Login:
    name, _, password = text.partition(":")
    if not _NAME.fullmatch(name):
        raise argparse.ArgumentTypeError("a name has lower-case letters, digits, dots, dashes and underscores")
    return Login(name, password or secrets.token_urlsafe(9))


def _domain(text: str) -> str:
    if not _DOMAIN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text} is not a domain")
    return text.lower()


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text} is not a port")
    return int(text)


def _options(argv: Sequence[str]) -> argparse.Namespace:
    about = "Make a private mail system, start it on 127.0.0.1, and show that it works."
    parser = argparse.ArgumentParser(prog="bin/quickstart", description=about)
    parser.add_argument("--home", metavar="DIR", default="var", help="where everything lies (default: ./var)")
    for name, text in _PORTS.items():
        usual = getattr(DEFAULT, name)
        parser.add_argument(f"--{name}", metavar="PORT", type=_port, help=f"{text}; 0: any (default: {usual})")
    parser.add_argument("--user", metavar="NAME:PASSWORD", type=_login, help="mailbox (default: demo, random password)")
    parser.add_argument("--domain", metavar="D", type=_domain, help="mail domain (default: qm.example)")
    return parser.parse_args(argv)


def _kept_login() -> Login | None:
    try:
        with open(LOGIN, encoding="utf-8") as file:
            name, _, password = file.read().strip().partition(":")
        return Login(name, password)
    except FileNotFoundError:
        return None


def _first_line(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.readline().strip()


def _prepare(root: str, options: argparse.Namespace) -> tuple[Login, str]:
    """Make the home, as far as it is not there, and its mailbox; the login and the domain."""
    folder = os.path.abspath(options.home)
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    owner = os.stat("control" if os.path.exists("control") else ".").st_uid
    if owner != os.geteuid():
        raise Failed(f"{options.home} belongs to {privs.account(owner)}; be that user, or choose another --home")
    kept = _kept_login()
    login: Login = options.user or kept or _login("demo")
    home.make(root, folder, options.domain or "qm.example", login.name)
    domain = _first_line("control/me")
    if options.domain not in (None, domain):
        raise Failed(f"{options.home} is {domain}'s; another --domain needs another --home")
    if login != kept:
        home.add_mailbox(login.name, login.password)
        home.write(LOGIN, f"{login.name}:{login.password}\n", 0o600)
    return login, domain


def _show(message: str, login: Login, ports: Ports, given_home: str) -> None:
    print("\n".join(["", *(f"    {line}" for line in message.splitlines()), ""]))
    print(f"It runs, and goes on running.  Its log: {given_home}/log/current.  To stop it: {given_home}/rc stop")
    print(f"In a mail program (the password is also in {given_home}/{LOGIN}; no authority knows the certificate):")
    print(f"    incoming POP3  {HOST} port {ports.pop3s} SSL/TLS   user {login.name}   password {login.password}")
    print(f"    outgoing SMTP  {HOST} port {ports.submits} SSL/TLS   or {ports.submit} STARTTLS; the same login")
    print("Without encryption, and for its own mailboxes only:")
    print(f"    incoming POP3  {HOST} port {ports.pop3}   outgoing SMTP  {HOST} port {ports.smtp}")


def _run(root: str, options: argparse.Namespace) -> None:
    login, domain = _prepare(root, options)
    print(f"mail system for {domain} in {os.getcwd()}", flush=True)
    ports, ran = start({name: getattr(options, name) for name in _PORTS}, domain)
    state = "runs already" if ran else "started"
    print(f"{state}: SMTP on {HOST}:{ports.smtp}, POP3 on {HOST}:{ports.pop3}", flush=True)
    address = f"{login.name}@{domain}"
    mark, reply = demo.send(ports.smtp, address)
    sent_s = time.monotonic()
    print(f"sent a message to {address}: {reply}", flush=True)
    message = demo.fetch(ports.pop3, login, mark)
    print(f"fetched it by POP3 {1000 * (time.monotonic() - sent_s):.0f} ms later:")
    _show(message, login, ports, options.home)


def main(root: str, argv: Sequence[str]) -> int:
    options = _options(argv)
    try:
        _run(root, options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # who reads us has had enough
    except (Failed, NoDemonstration, QmError) as error:
        print(f"quickstart: {error}", flush=True)
        return 1
    except OSError as error:
        print(f"quickstart: {error.filename or options.home}: {error.strerror}", flush=True)
        return 1
    return 0
