"""Certificates as an operator makes them, by openssl's command line."""

import os
import subprocess

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=True)


class Authority:
    """A root in `folder`, and the certificates that it signs there."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder = folder
        self.root = folder / "root.crt"
        self._key = folder / "root.key"
        _openssl("req", "-x509", *KEY, "-keyout", self._key, "-out", self.root, "-subj", "/CN=root")

    def sign(self, name, alternative_name):
        """The files of a new certificate and its key; `alternative_name` as openssl writes it, or empty."""
        request, extension = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        extension.write_text(f"subjectAltName={alternative_name}\n" if alternative_name else "")
        _openssl("req", *KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        by = ("-CA", self.root, "-CAkey", self._key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *by, "-extfile", extension, "-out", certificate)
        return certificate, key

    def server(self, name="server"):
        return self.sign(name, "IP:127.0.0.1,DNS:localhost")

    def caller(self, tenant, role):
        return self.sign(
            f"{tenant}_{role}", f"URI:spiffe://lab.example/tenant/{tenant}/role/{role}"
        )


class Mounted:
    """A folder of files that change all at once, as Kubernetes changes those of a secret: behind a link."""

    def __init__(self, folder):
        folder.mkdir()
        self._folder = folder
        self._version = 0
        self.certificate, self.key, self.root = (
            folder / "now" / name for name in ("crt", "key", "ca")
        )

    def put(self, certificate, key, root):
        self._version += 1
        version = self._folder / str(self._version)
        version.mkdir()
        for source, name in [(certificate, "crt"), (key, "key"), (root, "ca")]:
            (version / name).write_bytes(source.read_bytes())
        (self._folder / "next").symlink_to(version.name)
        os.replace(self._folder / "next", self._folder / "now")
