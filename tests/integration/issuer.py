"""Who signs tokens as an identity provider or a cluster does, by openssl's command line."""

import base64
import json
import subprocess
import time

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCE = "valuescope"


def _openssl(*arguments, sent=None):
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, input=sent, capture_output=True, check=True).stdout


def _base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Has one RSA key at a time, whose public half is in the file `keys`."""

    def __init__(self, folder):
        self.keys = folder / "jwks.json"
        self._key = folder / "issuer.key"
        self._count = 0
        self.change_key()

    def change_key(self):
        """From now on another one signs, and the file has that alone."""
        self._count += 1
        _openssl("genrsa", "-out", self._key, "2048")
        modulus = _openssl("rsa", "-in", self._key, "-noout", "-modulus").decode().strip()
        public = {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": str(self._count),
            "n": _base64url(bytes.fromhex(modulus.removeprefix("Modulus="))),
            "e": "AQAB",
        }
        new = self.keys.with_suffix(".new")
        new.write_text(json.dumps({"keys": [public]}))
        new.rename(self.keys)

    def token(self, subject, **claims):
        """As Kubernetes projects them into pods, for an hour; `claims` take the place of its own."""
        now = int(time.time())
        own = {"iss": ISSUER, "aud": [AUDIENCE], "sub": subject, "iat": now, "nbf": now}
        header = {"alg": "RS256", "kid": str(self._count)}
        parts = [header, own | {"exp": now + 3600} | claims]
        message = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
        signature = _openssl("dgst", "-sha256", "-sign", self._key, sent=message.encode())
        return f"{message}.{_base64url(signature)}"
