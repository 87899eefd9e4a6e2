"""Certificates."""

import subprocess


class Authority:
    """A certificate authority. Its files and all certificates that it issues are in `directory`."""

    def __init__(self, directory):
        self.directory = directory
        self.cert, self.key = self._certificate("ca", "DNS:ca", "/CN=ca", "TRUE")

    def issue(self, file_name, alternative_name, subject):
        """Return the paths of a new certificate and its key. `subject` is like /CN=name."""
        signed_by = ("-CA", self.cert, "-CAkey", self.key)
        return self._certificate(file_name, alternative_name, subject, "FALSE", *signed_by)

    def _certificate(self, file_name, alternative_name, subject, is_ca, *signed_by):
        cert, key = (self.directory / f"{file_name}.{end}" for end in ("pem", "key"))
        subprocess.run(
            [
                "openssl", "req", "-x509", "-days", "2", "-nodes",
                "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-subj", subject, "-addext", f"subjectAltName={alternative_name}",
                "-addext", f"basicConstraints=critical,CA:{is_ca}",
                "-out", cert, "-keyout", key, *signed_by,
            ],
            check=True, timeout=60, capture_output=True,
        )
        return cert, key
