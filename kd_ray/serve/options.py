"""Where the site listens, and who may read it."""

import ipaddress
from dataclasses import dataclass

from kd_ray.errors import InvalidInputError

MIN_TOKEN_LENGTH = 16
"""A shorter token could be guessed."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How a store is served. Checked when it is made.

    Raises:
        InvalidInputError: another address than loopback without a token, a short token, a port or a path that cannot be.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    """0 takes any free port."""
    token: str | None = None
    """Who does not know it reads nothing; None asks nobody."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names under which a browser may reach the site, such as that of a proxy."""
    root_path: str = ""
    """Path under which a proxy publishes the site, such as `/kd-ray`; empty for none."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InvalidInputError(f"--port {self.port}: expected a number from 0 to 65535")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise InvalidInputError(
                f"--root-path {self.root_path}: expected a path such as /kd-ray, without / at its end"
            )
        if self.token is None and not self.is_loopback:
            raise InvalidInputError(
                f"--host {self.host}: everybody who reaches this address could read the store; give a token with "
                "KD_RAY_SERVE_TOKEN or --token (`openssl rand -hex 16` makes one), or listen on 127.0.0.1"
            )
        if self.token is not None and len(self.token) < MIN_TOKEN_LENGTH:
            raise InvalidInputError(
                f"--token: it has {len(self.token)} characters; expected {MIN_TOKEN_LENGTH} or more "
                "(`openssl rand -hex 16` makes one)"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the address."""
        if self.host == "localhost":
            return True
        address = _address(self.host)
        return address is not None and address.is_loopback

    def accepts_host(self, header: str) -> bool:
        """Whether a request with this `Host` header was meant for this site.

        A page of somebody else can make its own name resolve to this machine (DNS rebinding). Its requests carry that name, and are
        refused. An address cannot be rebound; it is accepted where the site listens on it or on all addresses.
        """
        name = _host_name(header)
        if name in ("localhost", self.host.lower(), *(it.lower() for it in self.allowed_hosts)):
            return True
        address = _address(name)
        if address is None:
            return False
        mine = _address(self.host)
        return address.is_loopback or (mine is not None and mine.is_unspecified)


def _host_name(header: str) -> str:
    """The name or address in a `Host` header, without its port."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    name, _, port = header.rpartition(":")
    return name if name and port.isdigit() else header


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
