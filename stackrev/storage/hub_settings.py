"""What this computer says about the Hub: its address, cache, token, proxies and certificates.

They are settings of huggingface_hub's and of every HTTP client: environment variables and files that this package does
not own. One that makes no sense is an error that names it, never a traceback and never a warning of another library's.

Imports huggingface_hub only where it is needed.
"""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
import logging
import os
import ssl
import threading
import urllib.parse
import urllib.request
import warnings
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from types import ModuleType

from stackrev.errors import HubError

_TRUE = ("1", "ON", "YES", "TRUE")
_PROXY_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_OTHERS = threading.Lock()
"""Held while huggingface_hub is imported or asked for a token, as that is the only time its messages are held back."""


@dataclass(frozen=True)
class Address:
    """An address on the web.

    Attributes:
        scheme: "http" or "https"; for a proxy, "socks5" or "socks5h" as well.
        host: In lower case, without brackets.
        port: Always given.
        target: The path and the query.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Who is there: what decides whether the token may be sent."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The host and the port, as a `Host` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PROXY_PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True)
class Proxy:
    """A proxy.

    Attributes:
        setting: What names it, such as "HTTPS_PROXY".
        address: Where it is.
        login: User and password, where it wants them.
    """

    setting: str
    address: Address
    login: tuple[str, str] | None


def parse_address(url: str, schemes: tuple[str, ...] = ("http", "https")) -> Address:
    """The parts of a URL.

    Raises:
        ValueError: It is not one, is of another scheme, or holds a user's name.
    """
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise ValueError("a URL is printable ASCII without spaces")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"a URL starts with {' or '.join(f'{each}://' for each in schemes)} and a host")
    if "@" in parts.netloc:
        raise ValueError("a URL with a user's name is not used")
    if parts.port == 0 or parts.hostname.startswith(".") or len(parts.hostname) > 253:
        raise ValueError("a URL has a host and a port that can be connected to")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(parts.scheme, parts.hostname, parts.port or _PROXY_PORTS[parts.scheme], target)


def is_offline() -> bool:
    """Whether the network is off for every tool of the Hub."""
    return any(os.environ.get(name, "").upper() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def endpoint() -> str:
    """The Hub's address, without a slash at its end.

    Raises:
        HubError: The setting makes no sense.
    """
    url = str(_part("constants").ENDPOINT).rstrip("/")
    try:
        address = parse_address(url)
        if "?" in url or "#" in url:
            raise ValueError("the address of a Hub has no query")
    except ValueError as error:
        raise HubError(f"HF_ENDPOINT is not the address of a Hub: {error}", hint="unset HF_ENDPOINT") from error
    return f"{address.scheme}://{address.authority}{address.target.rstrip('/')}"


def cache() -> Path:
    """The folder of the Hub's cache.

    Raises:
        HubError: A setting makes no sense.
    """
    return Path(_part("constants").HF_HUB_CACHE)


def find_token(given: str | None) -> str | None:
    """The token: the one that is given, or the standard one unless that is not to be sent unasked.

    huggingface_hub may use the network for it, to renew one that is about to expire.

    Raises:
        HubError: There is one, and it cannot be read or used.
    """
    token = given
    if token is None and not _part("constants").HF_HUB_DISABLE_IMPLICIT_TOKEN:
        utils = _part("utils")
        logger = logging.getLogger("huggingface_hub")
        with _OTHERS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            level = logger.level
            logger.setLevel(logging.CRITICAL)
            try:
                token = utils.get_token()
            except Exception as error:
                raise HubError(
                    f"the Hub's token cannot be read: {short(error)}",
                    hint="log in with `hf auth login`, or set HF_TOKEN",
                ) from error
            finally:
                logger.setLevel(level)
    token = token and token.strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise HubError("the Hub's token has characters that no token has", hint="set HF_TOKEN anew, or `hf auth login`")
    return token or None


def find_proxy(address: Address) -> Proxy | None:
    """The proxy that requests to an address go through.

    Raises:
        HubError: There is one, and it cannot be used.
    """
    proxies = urllib.request.getproxies()
    scheme = address.scheme if proxies.get(address.scheme) else "all"
    url = proxies.get(scheme)
    if not url or _is_bypassed(address, proxies.get("no", "")):
        return None
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    setting = next((name for name in names if os.environ.get(name) == url), f"the system's {scheme} proxy")
    try:
        userinfo, _, rest = (url if "://" in url else f"http://{url}").rpartition("@")
        scheme, _, login = userinfo.partition("://")
        parsed = parse_address(f"{scheme}://{rest}" if login else rest, tuple(_PROXY_PORTS))
    except ValueError:
        message = f"{setting} is not the address of a proxy that can be used"
        raise HubError(message, hint=f"unset it, or write {setting}=http://host:port") from None
    if parsed.scheme.startswith("socks") and util.find_spec("socksio") is None:
        raise HubError(
            f"{setting} names a SOCKS proxy, which needs the package socksio",
            hint=f"install it with `pip install socksio`, or unset {setting}",
        )
    user, _, password = login.partition(":")
    return Proxy(setting, parsed, (urllib.parse.unquote(user), urllib.parse.unquote(password)) if login else None)


def _is_bypassed(address: Address, exceptions: str) -> bool:
    """Whether no proxy is used for an address; exceptions may be networks, such as 10.0.0.0/8, as well as names."""
    if urllib.request.proxy_bypass(address.authority):
        return True
    for each in exceptions.split(","):
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(address.host) in ipaddress.ip_network(each.strip().strip("[]"), strict=False):
                return True
    return False


def certificates() -> ssl.SSLContext:
    """What decides which servers are trusted.

    Raises:
        HubError: A setting names certificates that cannot be read.
    """
    from httpcore2 import default_ssl_context

    setting = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), None)
    try:
        if setting == "SSL_CERT_DIR" and not any(map(os.path.isdir, os.environ[setting].split(os.pathsep))):
            raise FileNotFoundError(2, "there is no such folder")
        if setting is None:
            return default_ssl_context()
        where = {"SSL_CERT_FILE": "cafile", "SSL_CERT_DIR": "capath"}[setting]
        return ssl.create_default_context(**{where: os.environ[setting]})  # type: ignore[arg-type]
    except (OSError, ValueError) as error:  # ssl's own errors are among them
        if setting is None:
            raise HubError(
                f"this system's certificates cannot be read: {short(error)}", hint="set SSL_CERT_FILE"
            ) from error
        reason = "no certificates are in it" if isinstance(error, ssl.SSLError) else getattr(error, "strerror", error)
        raise HubError(
            f"{setting} names certificates that cannot be read: {reason}", hint=f"unset {setting}, or mend its path"
        ) from error


def user_agent() -> str:
    """Who is asking."""
    try:
        return f"stackrev/{metadata.version('stackrev')}"
    except metadata.PackageNotFoundError:
        return "stackrev"


def short(error: BaseException, limit: int = 120) -> str:
    """An error in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _part(name: str) -> ModuleType:
    """A module of huggingface_hub's, which reads the environment while it is imported.

    Raises:
        HubError: It cannot be imported.
    """
    with _OTHERS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return importlib.import_module(f"huggingface_hub.{name}")
        except Exception as error:
            culprit = _culprit(error)
            if culprit is None:
                hint = "look at the variables that start with HF_, or install it again"
                raise HubError(f"huggingface_hub cannot be imported: {short(error)}", hint=hint) from error
            raise HubError(
                f"{culprit} has a value that huggingface_hub cannot read: {short(error)}", hint=f"unset {culprit}"
            ) from error


def _culprit(error: Exception) -> str | None:
    """The variable that huggingface_hub has tripped over."""
    for name, value in sorted(os.environ.items()):
        if name.startswith(("HF_", "HUGGINGFACE_")) and "TOKEN" not in name and repr(value) in str(error):
            return name
    try:
        urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT", ""))
    except ValueError:
        return "HF_ENDPOINT"
    return None
