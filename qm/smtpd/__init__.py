"""smtpd: takes mail from strangers by SMTP and hands it to the queue.

main wires, session does the input and output in their order, policy decides; the protocol is qm.wire.smtp.
"""
