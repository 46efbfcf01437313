"""Who may come in through the gateway's doors, and how: what `spade serve` is told beside the model and the ports."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class DoorsError(ValueError):
    """Doors that cannot be opened as asked; the message says which option to change."""


@dataclass(frozen=True)
class Doors:
    """Who may come in, and how. Paths are texts, since the record travels as JSON.

    Attributes:
        keys: a file of keys (serving/gateway/keys.py); None lets everybody in.
        without_keys: listen beyond this machine without keys all the same.
        per_minute: images a minute for a caller whose key names no limit; for each address where there are no keys.
            None for no limit.
        cors: origins whose pages may call, or `*`.
        tls_cert, tls_key: certificate chain and key (PEM) of the HTTP and gRPC doors.
        trusted_proxies: addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed.
        max_body_bytes: largest body of an HTTP request.
        json_log: log a line of JSON for each request.
    """

    keys: str | None = None
    without_keys: bool = False
    per_minute: int | None = None
    cors: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    max_body_bytes: int = 64 << 20
    json_log: bool = False

    @property
    def tls(self) -> bool:
        """Whether the doors speak TLS."""
        return self.tls_cert is not None

    def check(self, host: str) -> None:
        """Raises DoorsError for doors that should not be open on `host`, or options that contradict each other."""
        if host not in LOOPBACK and self.keys is None and not self.without_keys:
            raise DoorsError(
                f"[serve] expected --keys FILE with --host {host}, since others than this machine can then reach the "
                "server, but got none; make keys with `spade key`, or say --without-keys to let everybody in"
            )
        if self.keys is not None and self.without_keys:
            raise DoorsError("[serve] expected either --keys or --without-keys but got both; leave one out")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise DoorsError("[serve] expected --tls-cert and --tls-key together but got one; give both")
        self._check_certificate()
        for proxy in self.trusted_proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise DoorsError(
                    f"[serve] expected --trusted-proxy as an address or a network but got {proxy!r}: {error}"
                ) from None
        for origin in self.cors:
            if origin != "*" and (not origin.startswith(("http://", "https://")) or origin.count("/") != 2):
                raise DoorsError(
                    f"[serve] expected --cors as an origin such as https://example.org, or *, but got {origin!r}"
                )

    def _check_certificate(self) -> None:
        """Read certificate and key as the doors will, before anything is loaded. Raises DoorsError."""
        if self.tls_cert is None or self.tls_key is None:
            return
        import ssl

        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                self.tls_cert, self.tls_key, password=lambda: ""
            )
        except OSError as error:  # among them ssl.SSLError
            raise DoorsError(
                f"[serve] expected --tls-cert as a certificate chain and --tls-key as its key (PEM, without a "
                f"password) but got '{self.tls_cert}' and '{self.tls_key}': {error}"
            ) from None


OPEN = Doors()
"""Doors that let in everybody on this machine."""
