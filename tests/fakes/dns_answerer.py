"""A DNS server, recursive by its own word, that answers what a script tells it to.

Usage: dns_answerer.py script log.  The script is JSON: ``{"x.test MX": {"answer": ["10 mx.x.test."]}}``.  A name
without an entry for the type asked has NODATA; a name without any entry is NXDOMAIN.  An entry may have:

answer  records in text
ttl     theirs; 300 if not said
rcode   instead of NOERROR
ad      true: DNSSEC vouches for it, as it says to who asks about that
do      drop, garbage, truncate (whole by TCP), lame (neither RA nor AA), referral, noedns (FORMERR to EDNS),
        forged (an answer with a wrong ID comes first)
"""

import json
import socket
import sys
import threading
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class Answerer:
    def __init__(self, script: str, log: str) -> None:
        self._entries: dict[str, dict[str, Any]] = json.loads(script)
        self._names = {key.split()[0] for key in self._entries}
        self._log = open(log, "ab", buffering=0)  # noqa: SIM115  for the life of the process

    def _add(self, reply: dns.message.Message, name: str, rdtype: str) -> None:
        entry = self._entries.get(f"{name} {rdtype}", {})
        alias = self._entries.get(f"{name} CNAME")
        ttl = entry.get("ttl", 300)
        if alias and rdtype != "CNAME":
            target = alias["answer"][0]
            reply.answer.append(dns.rrset.from_text(name + ".", ttl, "IN", "CNAME", target))
            self._add(reply, target.rstrip("."), rdtype)
        elif "answer" in entry:
            reply.answer.append(dns.rrset.from_text(name + ".", ttl, "IN", rdtype, *entry["answer"]))
        elif name not in self._names:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        reply.set_rcode(dns.rcode.from_text(entry["rcode"])) if "rcode" in entry else None
        if not reply.answer and entry.get("do") != "referral":
            reply.authority = [dns.rrset.from_text("test.", 60, "IN", "SOA", "ns.test. root.test. 1 2 3 4 5")]

    def answer(self, wire: bytes, *, tcp: bool) -> list[bytes]:
        """The datagrams that answer *wire*."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self._log.write(f"{name} {rdtype}{' TCP' if tcp else ''}\n".encode())
        do = self._entries.get(f"{name} {rdtype}", {}).get("do", "")
        if do == "drop":
            return []
        if do == "garbage":
            return [wire[:2] + b"\x80" + wire[3:12] + b"\xff" * 20]
        reply = dns.message.make_response(query, recursion_available=do != "lame")
        self._add(reply, name, rdtype)
        entry = self._entries.get(f"{name} {rdtype}") or self._entries.get(f"{name} CNAME", {})
        if entry.get("ad") and query.flags & dns.flags.AD:
            reply.flags |= dns.flags.AD
        if do == "referral":
            reply.authority = [dns.rrset.from_text("test.", 60, "IN", "NS", "ns.test.")]
        if do == "noedns" and query.edns >= 0:
            reply = dns.message.make_response(dns.message.make_query(question.name, question.rdtype))
            reply.id = query.id
            reply.set_rcode(dns.rcode.FORMERR)
        if do == "truncate" and not tcp:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
        data = reply.to_wire(max_size=65535)
        forged = bytes([data[0] ^ 255]) + data[1:]
        return [forged, data] if do == "forged" else [data]

    def udp(self, server: socket.socket) -> None:
        while True:
            wire, peer = server.recvfrom(65535)
            for data in self.answer(wire, tcp=False):
                server.sendto(data, peer)

    def tcp(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                wire = stream.read(int.from_bytes(stream.read(2), "big"))
                for data in self.answer(wire, tcp=True):
                    connection.sendall(len(data).to_bytes(2, "big") + data)


def main(script: str, log: str) -> None:
    answerer = Answerer(script, log)
    listener = socket.create_server(("127.0.0.1", 0))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(listener.getsockname())
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=answerer.tcp, args=(listener,), daemon=True).start()
    answerer.udp(server)


if __name__ == "__main__":
    main(*sys.argv[1:])
