"""What a client shows a server: a bearer token, which may lie in a file that others renew, and the files of a TLS connection.

What the caller does not say is taken from the environment, under the names that the command line has: VALUESCOPE_TOKEN,
VALUESCOPE_TOKEN_FILE, VALUESCOPE_TLS_CA, VALUESCOPE_TLS_CERTIFICATE and VALUESCOPE_TLS_KEY.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

import grpc

# What the metadata of a call holds beside its request id.
Authorization = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Bearer:
    """A token, or the file in which it is.

    Attributes:
        token: sent as it is; None for none.
        file: read for every attempt of a call, so that a token that is renewed there (by Kubernetes, say) is the one that is
            sent. White space around the token does not count.
    """

    token: str | None = dataclasses.field(default=None, repr=False)
    file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.token is not None and self.file is not None:
            raise ValueError("give token or token_file, not both")

    def authorization(self) -> Authorization:
        """The metadata that it becomes; empty without a token.

        Raises:
            ValueError: the file cannot be read, or holds nothing.
        """
        token = self.token if self.file is None else _token_in(self.file)
        return () if token is None else (("authorization", f"Bearer {token}"),)


NO_TOKEN = Bearer()


def bearer(token: str | None, file: str | os.PathLike[str] | None) -> Bearer:
    """What the caller says; where that is nothing, what the environment does, whose token comes before its file."""
    if token is None and file is None:
        token = os.environ.get("VALUESCOPE_TOKEN") or None
        file = None if token else os.environ.get("VALUESCOPE_TOKEN_FILE") or None
    return Bearer(token, file)


@dataclasses.dataclass(frozen=True)
class Tls:
    """A connection with TLS: `vs.connect("lab.example:50051", tls=vs.Tls(ca="ca.pem"), token_file="token")`.

    The files are read when the connection is made.

    Attributes:
        ca: PEM file of the roots that the server's certificate is checked against; None for those that gRPC knows.
        certificate, key: PEM files of a certificate that tells the server who calls, and its key; both or neither.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a Tls needs certificate and key, both or neither")

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel of gRPC.

        Raises:
            ValueError: a file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_bytes_of(self.ca, "ca"),
            private_key=_bytes_of(self.key, "key"),
            certificate_chain=_bytes_of(self.certificate, "certificate"),
        )


def channel_credentials(
    tls: Tls | None, credentials: grpc.ChannelCredentials | None
) -> grpc.ChannelCredentials | None:
    """What the caller says; where that is nothing, what the environment does; None connects in the clear."""
    if credentials is not None:
        if tls is not None:
            raise ValueError("give tls or credentials, not both")
        return credentials
    if tls is None:
        names = [os.environ.get(f"VALUESCOPE_TLS_{name}") for name in ("CA", "CERTIFICATE", "KEY")]
        tls = Tls(*(name or None for name in names)) if any(names) else None
    return None if tls is None else tls.credentials()


def _token_in(file: str | os.PathLike[str]) -> str:
    try:
        token = pathlib.Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the token file {os.fspath(file)} cannot be read: {error}") from None
    if not token:
        raise ValueError(f"there is no token in the token file {os.fspath(file)}")
    return token


def _bytes_of(file: str | os.PathLike[str] | None, what: str) -> bytes | None:
    if file is None:
        return None
    try:
        return pathlib.Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"the file of {what} of Tls cannot be read: {error}") from None
