"""A real OpenLDAP server on loopback, over TLS alone, with people and groups in groups."""

from __future__ import annotations

import base64
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ldap

from bessemer.api.ca import CertificateAuthority, create_ca
from tests.ports import held_port

BASE = "dc=example,dc=org"
PEOPLE, GROUPS = f"ou=people,{BASE}", f"ou=groups,{BASE}"
US, SECRET = f"cn=bessemer,{BASE}", "our own secret"
ROOT = f"cn=root,{BASE}"
"""Who may change the directory, by the same secret."""

SCHEMAS = ("core", "cosine", "inetorgperson")
_SLAPD = "/usr/sbin/slapd"
_ASKED = re.compile(r'BIND dn="[^"]*"(?= method=)|SRCH(?= base=)')


@dataclass
class Slapd:
    """Where it listens: ``ldaps`` by TLS from the first byte, ``ldap`` by StartTLS; ``log`` holds what it was asked."""

    ldaps: str
    ldap: str
    ca: CertificateAuthority
    log: Path

    @property
    def authorities(self) -> str:
        return self.ca.certificate.decode()

    def asked(self, since: int = 0) -> list[str]:
        """Binds, with whom as, and searches, in order, of what it noted from that place in its log on."""
        return _ASKED.findall(self.log.read_text()[since:])

    def let_in(self, group: str, members: Sequence[str]) -> None:
        """From now on the group has these DNs, at least one, and no others."""
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(self.ca.certificate)
            link = ldap.initialize(self.ldaps)
            link.set_option(ldap.OPT_X_TLS_CACERTFILE, file.name)
            link.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
            link.simple_bind_s(ROOT, SECRET)
        link.modify_s(group_of(group), [(ldap.MOD_REPLACE, "member", [member.encode() for member in members])])
        link.unbind_s()


@contextmanager
def running(directory: Path, people: Mapping[str, str], groups: Mapping[str, Sequence[str]]) -> Iterator[Slapd]:
    """``people`` maps a name to a password, ``groups`` a name to DNs."""
    ca = create_ca("directory")
    pair = ca.issue("directory", sans=["127.0.0.1", "localhost"])
    for name, data in (("ca.crt", ca.certificate), ("s.crt", pair.certificate), ("s.key", pair.key)):
        (directory / name).write_bytes(data)
    (directory / "db").mkdir()
    config, ldif = directory / "slapd.conf", directory / "all.ldif"
    config.write_text(_config(directory))
    ldif.write_text(_ldif(people, groups))
    subprocess.run(["/usr/sbin/slapadd", "-q", "-f", config, "-l", ldif], check=True, capture_output=True)
    with held_port() as tls, held_port() as plain:
        made = Slapd(f"ldaps://127.0.0.1:{tls}", f"ldap://127.0.0.1:{plain}", ca, directory / "log")
        with made.log.open("wb") as log:
            server = subprocess.Popen(
                [_SLAPD, "-d", "stats", "-f", config, "-h", f"{made.ldaps} {made.ldap}"], stdout=log, stderr=log
            )
        try:
            _await((tls, plain), server)
            yield made
        finally:
            server.terminate()
            server.wait(60)


def _config(directory: Path) -> str:
    schemas = "\n".join(f"include /etc/ldap/schema/{name}.schema" for name in SCHEMAS)
    return f"""{schemas}
pidfile {directory}/pid
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCACertificateFile {directory}/ca.crt
TLSCertificateFile {directory}/s.crt
TLSCertificateKeyFile {directory}/s.key
security ssf=128
disallow bind_anon
database mdb
suffix "{BASE}"
directory {directory}/db
maxsize 10485760
rootdn "{ROOT}"
rootpw "{SECRET}"
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="{GROUPS}" by dn.exact="{US}" read by * none
access to * by dn.exact="{US}" read by self read by * none
"""


def _ldif(people: Mapping[str, str], groups: Mapping[str, Sequence[str]]) -> str:
    entries = [
        {"dn": BASE, "objectClass": ["dcObject", "organization"], "dc": "example", "o": "Example"},
        {"dn": PEOPLE, "objectClass": "organizationalUnit", "ou": "people"},
        {"dn": GROUPS, "objectClass": "organizationalUnit", "ou": "groups"},
        {"dn": US, "objectClass": ["simpleSecurityObject", "organizationalRole"], "cn": "bessemer",
         "userPassword": SECRET},
        # To be referred to another server is to be asked to tell it a password.
        {"dn": f"ou=away,{PEOPLE}", "objectClass": ["referral", "extensibleObject"], "ou": "away",
         "ref": "ldap://192.0.2.1/"},
    ]  # fmt: skip
    for name, password in people.items():
        about = {"uid": name, "cn": name.title(), "sn": name, "mail": "someone@example.org", "userPassword": password}
        entries.append({"dn": dn_of(name), "objectClass": "inetOrgPerson", **about})
    for name, members in groups.items():
        entries.append({"dn": group_of(name), "objectClass": "groupOfNames", "cn": name, "member": list(members)})
    return "\n".join(_entry(one) for one in entries)


def _entry(entry: Mapping[str, str | list[str]]) -> str:
    lines = []
    for key, value in entry.items():
        for one in [value] if isinstance(value, str) else value:
            lines.append(f"{key}:: {base64.b64encode(one.encode()).decode()}")
    return "\n".join(lines) + "\n"


def dn_of(name: str) -> str:
    return f"uid={_escaped(name)},{PEOPLE}"


def group_of(name: str) -> str:
    return f"cn={_escaped(name)},{GROUPS}"


def _escaped(value: str) -> str:
    return "".join(f"\\{letter}" if letter in ',+"\\<>;=#' else letter for letter in value)


def _await(ports: Sequence[int], server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    for port in ports:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, "slapd ended by itself"
                assert time.monotonic() < end, "slapd does not listen"
                time.sleep(0.02)
