"""qm: a mail suite of small programs that do not trust one another.

    network -> tcpserver -> smtpd --+                      +-> lspawn -> local  -> Maildir, mbox, program, forward
                                    +-> queue ==> send ----+
    user ----> qm-queue ------------+     (queue/)         +-> rspawn -> remote -> network

    network -> tcpserver -> popup -> checkpassword -> pop3d <- ~user/Maildir
                                \\-> userd <-/

This module imports nothing.
"""

__version__ = "0.1.0"
