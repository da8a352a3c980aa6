"""A small userd for tests: it answers by a table, over a real users/socket (docs/INTERNALS.md 1.7).

    scripted_userd.py USER:PASSWORD:UID:GID:HOME ...      password "later": cannot tell now

The refusal of a user "slow" must wait for a second.

Writes one line to stdout when it serves, and one for each question, without the secret.
"""

import hashlib
import os
import socket
import sys


def _answer(fields: list[bytes], table: dict[bytes, list[bytes]]) -> tuple[bytes, ...]:
    kind, method, name, secret, challenge, _ = fields
    if kind != b"login" or name not in table:
        return b"bad", b"wrong name or password", b"1" if name == b"slow" else b"0", b"0"
    password, uid, gid, home = table[name]
    if password == b"later":
        return b"later", b"scripted"
    right = hashlib.md5(challenge + password).hexdigest().encode() if method == b"apop" else password  # noqa: S324
    if secret != right:
        return b"bad", b"wrong name or password", b"0", b"0"
    return b"ok", name, uid, gid, home, b"/bin/sh", name, b""


def main() -> None:
    table = {entry[0]: entry[1:] for entry in (os.fsencode(arg).split(b":") for arg in sys.argv[1:])}
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("users/socket")
    listener.listen(20)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            while record := connection.recv(65536):
                fields = record.split(b"\0")[:-1]
                print(fields[0].decode(), fields[2].decode(), "digest" if fields[4] else "password", flush=True)
                connection.send(b"".join(field + b"\0" for field in _answer(fields, table)))
            os._exit(0)
        connection.close()


main()
