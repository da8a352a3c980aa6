"""An HTTPS server that gives one answer to everybody, and writes down who asks.

Usage: https_server.py certificate answer log.  *answer* is what it sends, as text; ``!hang``: nothing, until the client
leaves; ``@@`` in it is 200000 bytes.  The log has each request line.
"""

import socket
import ssl
import sys
import threading


class Server:
    def __init__(self, certificate: str, answer: str, log: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._answer = answer.replace("@@", "y" * 200000)
        self._log = log

    def serve(self, plain: socket.socket) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as connection:
                request = connection.recv(65536).decode("latin-1")
                with open(self._log, "a") as file:
                    file.write(request.partition("\r\n")[0] + "\n")
                if self._answer == "!hang":
                    connection.recv(65536)
                else:
                    connection.sendall(self._answer.encode("latin-1"))
        except OSError:
            pass  # the client did not like us


def main(certificate: str, answer: str, log: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(certificate, answer, log)
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=server.serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
