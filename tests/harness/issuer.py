"""An issuer of tokens that can be asked about them (RFC 7662): Authlib's, with a client "mail" and a few tokens."""

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from flask import Flask, Response
from werkzeug.serving import make_server

CLIENT: Final = "mail"
SECRET: Final = "a secret: with % and more"


class _Client(ClientMixin):
    def get_client_id(self) -> str:
        return CLIENT

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"


class _Token(dict[str, Any]):
    def is_expired(self) -> bool:
        return False  # so that who asks has to look

    def is_revoked(self) -> bool:
        return self.get("active") is False


class Issuer:
    """*tokens*: what is said of each; of others that they are not active."""

    def __init__(self, tokens: Mapping[str, dict[str, Any]], certificate: Path | None) -> None:
        issuer = self
        self.asked: list[str] = []

        class Endpoint(IntrospectionEndpoint):  # type: ignore[misc]
            def query_token(self, token_string: str, token_type_hint: str) -> _Token | None:
                issuer.asked.append(token_string)
                return _Token(tokens[token_string]) if token_string in tokens else None

            def check_permission(self, token: Any, client: Any, request: Any) -> bool:
                return True

            def introspect_token(self, token: _Token) -> dict[str, Any]:
                return {"active": True, **token}

        app = Flask("issuer")
        known = {CLIENT: _Client()}
        server = AuthorizationServer(app, query_client=known.get, save_token=lambda token, request: None)
        server.register_endpoint(Endpoint)

        @app.route("/introspect", methods=["POST"])
        def introspect() -> Response:
            answer: Response = server.create_endpoint_response(Endpoint.ENDPOINT_NAME)
            return answer

        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        self.server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=context)
        self.url = f"{'https' if context else 'http'}://localhost:{self.server.server_port}/introspect"


@contextmanager
def issuer(tokens: Mapping[str, dict[str, Any]], certificate: Path | None = None) -> Iterator[Issuer]:
    made = Issuer(tokens, certificate)
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()
