"""One transaction: what is said, and what each answer means for each recipient."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.remote.transaction import Text, Traits, Transaction
from qm.remote.words import Peer
from qm.wire import queueid
from qm.wire.delivery import Addressee, Delivery
from qm.wire.replies import BadReply, Reply
from qm.wire.smtpclient import Answer, Client, Extensions, Step

PEER = Peer(b"mx.test", b"192.0.2.1")
PIPELINING = Extensions(pipelining=True)


def delivery(*recipients: bytes, sender: bytes = b"a@b.example", flags: bytes = b"") -> Delivery:
    addressees = tuple(Addressee(place, address) for place, address in enumerate(recipients or (b"c@d.example",)))
    return Delivery(1, queueid.make(1, 1), flags, sender, addressees)


def client(extensions: Extensions) -> Client:
    made = Client()
    made.receive(b"220 x\r\n250 x\r\n")
    made.next_answer()
    made.ehlo(b"me")
    made.next_answer()
    made.outgoing()
    made.extensions = extensions
    return made


class Talk:
    """A transaction with a server that says *replies*; `said` is everything that left, with TEXT for the message."""

    def __init__(self, what: Delivery, extensions: Extensions, replies: bytes, **how: object) -> None:
        self.client = client(extensions)
        traits = Traits(int(str(how.get("size", 10))), bool(how.get("utf8_header", False)))
        which = list(range(len(what.recipients)))
        clean = bool(how.get("clean", True))
        self.transaction = Transaction(what, which, PEER, extensions, traits, clean=clean)
        self.said = b""
        self.client.receive(replies)
        self._run()

    def _run(self) -> None:
        transaction, client = self.transaction, self.client
        while True:
            transaction.speak(client)
            self.said += client.outgoing()
            if transaction.text is not Text.NO:
                self.said += b"TEXT\r\n" if transaction.text is Text.YES else b"NOTHING\r\n"
                if client.extensions.chunking:
                    client.bdat(4, last=True)
                else:
                    client.ended()
                transaction.text_sent()
            if client.awaited is None:
                return
            answer = client.next_answer()
            if answer is None:
                transaction.lost(b"connection died")
                return
            transaction.take(answer)

    def letters(self) -> str:
        results = self.transaction.results
        return "".join(
            results[place].letter.decode() if place in results else "-" for place in range(max(results, default=-1) + 1)
        )


ALL_WELL = b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n250 2.0.0 queued\r\n"


@pytest.mark.parametrize("pipelining", [True, False])
def test_success(pipelining: bool) -> None:
    """A message that is accepted is delivered, with the server's words, pipelined or not."""
    talk = Talk(delivery(), Extensions(pipelining=pipelining), ALL_WELL)
    result = talk.transaction.results[0]
    assert (result.letter, result.status, result.mta, result.diagnostic) == (
        b"K",
        b"2.0.0",
        b"mx.test",
        b"250 2.0.0 queued",
    )
    assert result.text == b"192.0.2.1 accepted message.\nRemote host said: 250 2.0.0 queued\n"
    assert talk.said == b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nTEXT\r\n"
    assert talk.transaction.finished


@pytest.mark.parametrize(
    ("replies", "letters", "text"),
    [
        (b"250\r\n250\r\n550 no\r\n354\r\n250\r\n", "KD", True),
        (b"250\r\n450 later\r\n250\r\n354\r\n250\r\n", "ZK", True),
        (b"250\r\n250\r\n250\r\n354\r\n552 full\r\n", "DD", True),
        (b"250\r\n250\r\n250\r\n354\r\n451 later\r\n", "ZZ", True),
        (b"250\r\n250\r\n250\r\n354\r\n354 what\r\n", "ZZ", True),
        (b"250\r\n250\r\n550\r\n354\r\n", "ZD", True),
        (b"250\r\n250\r\n250\r\n554 no\r\n", "DD", False),
        (b"250\r\n250\r\n250\r\n450 later\r\n", "ZZ", False),
        (b"250\r\n250\r\n250\r\n250 what\r\n", "ZZ", False),
        (b"250\r\n350 what\r\n550\r\n554\r\n", "ZD", False),
        (b"553 who\r\n503\r\n503\r\n503\r\n", "DD", False),
        (b"451 wait\r\n250\r\n250\r\n503\r\n", "ZZ", False),
        (b"250\r\n550\r\n450\r\n503\r\n", "DZ", False),
        (b"250\r\n", "ZZ", False),
        (b"", "ZZ", False),
    ],
)
@pytest.mark.parametrize("pipelining", [True, False])
def test_results(replies: bytes, letters: str, text: bool, pipelining: bool) -> None:
    """Each recipient's result is its own; a refused sender or message is everybody's; a lost session is temporary."""
    talk = Talk(delivery(b"c@d.example", b"e@d.example"), Extensions(pipelining=pipelining), replies)
    assert talk.letters() == letters
    assert (b"TEXT" in talk.said) is text


def test_text_for_nobody() -> None:
    """A 354 although every recipient was refused gets a dot alone (RFC 2920 3.1); its answer changes nothing."""
    talk = Talk(delivery(), PIPELINING, b"250\r\n550 no\r\n354 go\r\n250 done\r\n")
    assert talk.letters() == "D"
    assert talk.said.endswith(b"DATA\r\nNOTHING\r\n")


def test_no_data_without_recipient() -> None:
    """Without pipelining DATA is not said for nobody."""
    assert b"DATA" not in Talk(delivery(), Extensions(), b"250\r\n550 no\r\n").said


def test_possible_duplicate() -> None:
    """A lost answer to the dot is temporary, and the text says that there may be two now (RFC 1047)."""
    result = Talk(delivery(), PIPELINING, b"250\r\n250\r\n354\r\n").transaction.results[0]
    assert (result.letter, result.status) == (b"Z", b"4.4.2")
    assert b"Possible duplicate!" in result.text
    assert b"duplicate" not in Talk(delivery(), PIPELINING, b"250\r\n").transaction.results[0].text


@pytest.mark.parametrize("code", [b"452", b"552"])
def test_too_many_recipients(code: bytes) -> None:
    """What was too many belongs to the next transaction (RFC 5321 4.5.3.1.10), if one was taken."""
    replies = b"250\r\n250\r\n%b too many\r\n354\r\n250\r\n" % code
    talk = Talk(delivery(b"a@x.test", b"b@x.test"), PIPELINING, replies)
    assert (talk.letters(), talk.transaction.again) == ("K", [1])
    alone = Talk(delivery(), PIPELINING, b"250\r\n%b 4.5.3 too many\r\n503\r\n" % code)
    assert alone.letters() in ("Z", "D") and not alone.transaction.again


def test_a_full_mailbox_is_not_too_many() -> None:
    """552 5.2.2 is about the mailbox."""
    talk = Talk(delivery(b"a@x.test", b"b@x.test"), PIPELINING, b"250\r\n250\r\n552 5.2.2 full\r\n354\r\n250\r\n")
    assert talk.letters() == "KD"


def test_reset_first() -> None:
    """After a transaction that was left unfinished, RSET comes first."""
    talk = Talk(delivery(), PIPELINING, b"250\r\n" + ALL_WELL, clean=False)
    assert talk.said.startswith(b"RSET\r\nMAIL")
    assert talk.letters() == "K"


def test_chunking() -> None:
    """With CHUNKING the text follows once recipients are accepted, and there is no DATA."""
    talk = Talk(delivery(), Extensions(pipelining=True, chunking=True), b"250\r\n250\r\n250 done\r\n")
    assert talk.said == b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nTEXT\r\nBDAT 4 LAST\r\n"
    assert talk.letters() == "K"
    refused = Talk(delivery(), Extensions(pipelining=True, chunking=True), b"250\r\n550\r\n")
    assert b"TEXT" not in refused.said and refused.letters() == "D"


def test_parameters() -> None:
    """What the server offers is used: SIZE, BODY, SMTPUTF8, and the DSN parameters are passed on."""
    what = Delivery(
        1,
        queueid.make(1, 1),
        b"8U",
        b"a@b.example",
        (Addressee(0, b"c@d.example", b"NEVER", b"rfc822;x+3Dy"),),
        b"HDRS",
        b"e1",
    )
    everything = Extensions(pipelining=True, eight_bit=True, smtputf8=True, dsn=True, size=True)
    talk = Talk(what, everything, ALL_WELL, size=123)
    assert talk.said.startswith(
        b"MAIL FROM:<a@b.example> SIZE=123 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=e1\r\n"
        b"RCPT TO:<c@d.example> NOTIFY=NEVER ORCPT=rfc822;x+3Dy\r\n"
    )
    assert talk.transaction.results[0].dsn
    plain = Talk(what, PIPELINING, ALL_WELL)
    assert plain.said.startswith(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n")
    assert not plain.transaction.results[0].dsn


@pytest.mark.parametrize("value", [b"x y", b"x\r\nRSET", b"\x7f", b"\xff"])
def test_no_parameter_ends_a_command(value: bytes) -> None:
    """A DSN parameter that could be anything else is left out."""
    what = delivery()._replace(envid=value, recipients=(Addressee(0, b"c@d.example", value, value),))
    said = Talk(what, Extensions(pipelining=True, dsn=True), ALL_WELL).said
    assert said.startswith(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")


@pytest.mark.parametrize("size", [100, 101])
def test_size(size: int) -> None:
    """A message over the server's limit is refused without a word to it (RFC 1870)."""
    talk = Talk(delivery(), Extensions(pipelining=True, size=True, size_max=100), ALL_WELL, size=size)
    assert (talk.said == b"") is (size > 100)
    if size > 100:
        result = talk.transaction.results[0]
        assert (result.letter, result.status) == (b"D", b"5.3.4")
        assert not talk.transaction.begun


UTF8 = "jörg@d.example".encode()


@pytest.mark.parametrize(
    ("what", "how"),
    [
        (delivery(UTF8), {}),
        (delivery(sender=UTF8), {}),
        (delivery(flags=b"U"), {"utf8_header": True}),
    ],
)
def test_needs_smtputf8(what: Delivery, how: dict[str, object]) -> None:
    """What needs SMTPUTF8 and does not find it fails for good (RFC 6531 3.5)."""
    talk = Talk(what, PIPELINING, ALL_WELL, **how)
    result = talk.transaction.results[0]
    assert (result.letter, result.status, talk.said) == (b"D", b"5.6.7", b"")
    assert Talk(what, Extensions(pipelining=True, smtputf8=True), ALL_WELL, **how).letters() == "K"


def test_asked_for_but_not_needed() -> None:
    """A message that is all ASCII passes without SMTPUTF8, whatever its sender asked for."""
    assert Talk(delivery(flags=b"U"), PIPELINING, ALL_WELL).letters() == "K"


def test_only_the_domain_is_utf8() -> None:
    """A domain goes as A-labels where the server has no SMTPUTF8; where it has, as it is."""
    what = delivery("c@bücher.example".encode())
    assert b"RCPT TO:<c@xn--bcher-kva.example>\r\n" in Talk(what, PIPELINING, ALL_WELL).said
    said = Talk(what, Extensions(pipelining=True, smtputf8=True), ALL_WELL).said
    assert b" SMTPUTF8\r\n" in said and "RCPT TO:<c@bücher.example>".encode() in said


def test_one_utf8_recipient_of_two() -> None:
    """Only the recipient that needs it fails."""
    talk = Talk(delivery(b"c@d.example", UTF8), PIPELINING, ALL_WELL)
    assert talk.letters() == "KD"


@pytest.mark.parametrize(
    ("address", "wire"),
    [
        (b"c@d.example", b"<c@d.example>"),
        (b"joe user@d.example", b'<"joe user"@d.example>'),
        (b'a"b@d.example', b'<"a\\"b"@d.example>'),
        (b"c@[192.0.2.1]", b"<c@[192.0.2.1]>"),
    ],
)
def test_quoting(address: bytes, wire: bytes) -> None:
    """A local part that needs quotes has them on the wire."""
    assert b"RCPT TO:" + wire + b"\r\n" in Talk(delivery(address), PIPELINING, ALL_WELL).said


@pytest.mark.parametrize(
    "address", [b"a\rb@d.example", b"a\0b@d", b"a@b> NOTIFY=NEVER", b"a@b c", b"a@\r\nRSET", b"a@b>\r\nDATA"]
)
def test_no_address_ends_a_command(address: bytes) -> None:
    """An address that could end its command or begin a parameter fails, and does not leave; others are served."""
    talk = Talk(delivery(address, b"c@d.example"), PIPELINING, ALL_WELL)
    assert talk.letters() == "DK"
    assert talk.transaction.results[0].status == b"5.1.3"
    assert talk.said.count(b"\r\n") == 4
    bad_sender = Talk(delivery(sender=address), PIPELINING, ALL_WELL)
    assert (bad_sender.letters(), bad_sender.said) == ("D", b"")


@pytest.mark.parametrize("sender", [b"", b"#@[]"])
def test_null_senders(sender: bytes) -> None:
    """Bounces and double bounces leave with the null reverse-path (RFC 5321 4.5.5)."""
    assert Talk(delivery(sender=sender), PIPELINING, ALL_WELL).said.startswith(b"MAIL FROM:<>\r\n")


@pytest.mark.parametrize(
    ("reply", "letter"), [(b"552 too big\r\n", b"D"), (b"452 full\r\n", b"Z"), (b"250 what\r\n", b"Z")]
)
def test_interrupted(reply: bytes, letter: bytes) -> None:
    """A server that refuses while the text is coming is taken at its word; one that accepts half a message is not."""
    transaction = Transaction(delivery(), [0], PEER, PIPELINING, Traits(1, False), clean=True)
    transaction.take(Answer(Step.MAIL, Reply(250, b"250\r\n")))
    transaction.take(Answer(Step.RCPT, Reply(250, b"250\r\n")))
    transaction.take(Answer(Step.DATA, Reply(354, b"354\r\n")))
    transaction.interrupted(Reply(int(reply[:3]), reply))
    assert transaction.results[0].letter == letter
    assert transaction.text is Text.NO


REPLIES = st.lists(
    st.sampled_from(
        [b"250 ok\r\n", b"354 go\r\n", b"450 no\r\n", b"550 no\r\n", b"452 many\r\n", b"251-x\r\n", b"junk\r\n"]
    ),
    max_size=9,
).map(b"".join)


@given(REPLIES, st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_every_recipient_has_a_result(replies: bytes, pipelining: bool, chunking: bool, rng: random.Random) -> None:
    """Whatever the server says, each recipient has a result or is to come again; K only after the text was accepted."""
    recipients = [b"%d@d.example" % n for n in range(rng.randint(1, 4))]
    try:
        talk = Talk(delivery(*recipients), Extensions(pipelining=pipelining, chunking=chunking), replies)
    except BadReply:
        return
    transaction = talk.transaction
    assert set(transaction.results) | set(transaction.again) == set(range(len(recipients)))
    delivered = [result for result in transaction.results.values() if result.letter == b"K"]
    assert not delivered or (b"TEXT" in talk.said and transaction.finished)
