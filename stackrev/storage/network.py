"""The network policy: every byte to and from the Hub goes through a `Client`, and every rule about it is here.

- **Time.** A call has one deadline for all that it does. It holds below HTTP, where bytes are sent and received, so
  that it does not matter what is slow: a name that is looked up, a handshake, a header, a body, a chain of redirects.
  Time in which a file moves fast enough is left out. A server that is silent is given less.
- **Size.** Every answer has a limit in bytes, which are counted after decompression and before they are kept.
- **Repetition.** What can be repeated is repeated a few times, and a file that breaks off is resumed, while that gets
  somewhere.
- **Trust.** The token goes to the Hub's own origin and to nobody else. Redirects are followed a few times, never from
  https to http. What a server says about itself in words is never shown.

A client belongs to one call and one thread and shares nothing, so that calls may run side by side, and beside others
that use huggingface_hub.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpcore2

from stackrev.errors import HubError
from stackrev.storage import deadline, hub_settings
from stackrev.storage.deadline import Backend, Deadline, Pieces
from stackrev.storage.hub_settings import Address, Proxy, parse_address

_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSIENT = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Answer:
    """What the Hub answered.

    Attributes:
        status: HTTP's.
        headers: By name, in lower case; those that came several times are joined by commas.
        body: Decompressed; empty where the Hub refused, as its words are not used.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            HubError: It is not JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise failure("its answer is not JSON") from None


def failure(reason: str) -> HubError:
    """The Hub did not do what it should."""
    return HubError(f"the Hub failed: {reason}", hint="try again later; what is in the cache still works")


class Client:
    """HTTP with one Hub, for one call: see the head of this file. A context manager that closes its connections.

    Args:
        endpoint: The Hub's address; paths are appended to it.
        token: Finds the token.
        count: Told of the bytes of files as they are received and sent.
        sending: Whether the call commits something, which takes a Hub longer.

    Raises:
        HubError: A setting of this computer makes no sense.
    """

    def __init__(
        self,
        endpoint: str,
        token: Callable[[], str | None],
        *,
        count: Callable[[int], object] = lambda _: None,
        sending: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.policy = deadline.POLICY
        self._count = count
        self._deadline = Deadline(self.policy, sending=sending)
        self._home = parse_address(endpoint)
        self._certificates = hub_settings.certificates()
        self._pools: dict[Proxy | None, httpcore2.ConnectionPool] = {}
        try:
            self._token = self._deadline.within(token)
        except httpcore2.TimeoutException:
            raise HubError("the Hub's token is not found in time", hint="set HF_TOKEN") from None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for pool in self._pools.values():
            with contextlib.suppress(Exception):
                pool.close()

    def ask(
        self, method: str, path: str, *, content: bytes | None = None, kind: str = "application/json", limit: int = 0
    ) -> Answer:
        """Send a request and read the whole answer.

        Args:
            method: HTTP's.
            path: What follows the endpoint, or a whole URL; only the Hub's own origin sees the token.
            content: The body.
            kind: Its media type.
            limit: The most bytes of the answer; `Policy.answer_bytes` if 0.

        Raises:
            HubError: There is no answer, or it breaks a rule.
        """
        headers = {"Accept": "application/json"}
        if content is not None:
            headers |= {"Content-Type": kind, "Content-Length": str(len(content))}
        pieces = None if content is None else Pieces(content, self._deadline, self._deadline.earn)
        for left in reversed(range(self.policy.attempts if method == "GET" else 1)):
            with self._opened(method, self._url(path), headers, pieces) as response:
                try:
                    found = _headers(response)
                    if method == "HEAD" or response.status >= 300:
                        return Answer(response.status, found, b"")
                    body = self._body(response, found, limit or self.policy.answer_bytes)
                    return Answer(response.status, found, body)
                except httpcore2.TimeoutException:
                    raise self._silent() from None
                except (httpcore2.NetworkError, httpcore2.ProtocolError):
                    if not left:
                        raise failure("the connection keeps breaking off") from None
        raise AssertionError("unreachable")

    def download(self, path: str, size: int) -> Iterator[bytes]:
        """The parts of a file of a known size, resumed where the connection breaks off.

        Args:
            path: What follows the endpoint.
            size: The bytes that it has.

        Raises:
            HubError: It cannot be had as a whole.
        """
        received, start = 0, time.monotonic()
        for tries in range(self.policy.resumptions + 1):
            waited = time.monotonic() - start
            if tries and waited > self.policy.patience_seconds and received < waited * self.policy.bytes_per_second:
                break
            headers = {"Range": f"bytes={received}-"} if received else {}
            with self._opened("GET", self._url(path), headers) as response:
                self._deadline.start()
                try:
                    for part in self._parts(response, received, size):
                        received += len(part)
                        self._moved(len(part))
                        yield part
                    if received == size:
                        return
                except httpcore2.TimeoutException:
                    if self._deadline.left() <= 0:
                        raise self._silent() from None
                except (httpcore2.NetworkError, httpcore2.ProtocolError):
                    pass
            self._sleep(0.2 * tries)
        raise failure("the connection keeps breaking off")

    def upload(self, url: str, content: bytes) -> Answer:
        """Send a file to an address that the Hub has named.

        Raises:
            HubError: It cannot be sent, or there is no answer.
        """
        headers = {"Content-Length": str(len(content))}
        with self._opened("PUT", url, headers, Pieces(content, self._deadline, self._moved)) as response:
            return Answer(response.status, _headers(response), b"")

    def _url(self, path: str) -> str:
        return path if "://" in path else self.endpoint + path

    def _moved(self, count: int) -> None:
        self._deadline.earn(count)
        self._count(count)

    def _sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, min(seconds, self._deadline.left())))

    def _silent(self) -> HubError:
        return failure("it sends too slowly" if self._deadline.left() <= 0 else "it does not answer")

    @contextlib.contextmanager
    def _opened(
        self, method: str, url: str, headers: Mapping[str, str], content: Iterable[bytes] | None = None
    ) -> Iterator[httpcore2.Response]:
        """The answer to a request, after redirects, and after repetitions where they may help."""
        start, attempt, hops, trusted = time.monotonic(), 1, 0, True
        while True:
            wait = float(attempt)
            try:
                address = parse_address(url)
                trusted = trusted and address.origin == self._home.origin
                response = self._send(method, address, headers, content, trusted)
            except ValueError:
                raise failure("it names an address that makes no sense") from None
            except _NoAnswerError as error:
                reason = str(error)
            else:
                target = self._target(method, url, response)
                if target is None and response.status not in _TRANSIENT:
                    break
                _close(response)
                if target is not None:
                    url, hops = target, hops + 1
                    if hops > self.policy.redirects:
                        raise failure("it redirects again and again")
                    continue
                reason = "too many requests" if response.status == 429 else f"HTTP status {response.status}"
                asked = _headers(response).get("retry-after", "")
                wait = float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 9 else wait
            late = time.monotonic() - start + wait > self.policy.patience_seconds or self._deadline.left() <= wait
            if method not in ("GET", "HEAD") or attempt == self.policy.attempts or late:
                raise failure(reason)
            attempt += 1
            self._sleep(wait)
        try:
            yield response
        finally:
            _close(response)

    def _target(self, method: str, url: str, response: httpcore2.Response) -> str | None:
        """Where an answer redirects to, if that is to be followed.

        A HEAD is followed within the Hub alone: what it asks for are the Hub's own headers.

        Raises:
            HubError: It redirects to where nobody should go.
        """
        location = _headers(response).get("location")
        if response.status not in _REDIRECTS or location is None:
            return None
        try:
            target = urllib.parse.urljoin(url, location)
            here, there = parse_address(url), parse_address(target)
        except ValueError:
            _close(response)
            raise failure("it redirects to an address that makes no sense") from None
        if (here.scheme, there.scheme) == ("https", "http"):
            _close(response)
            raise failure("it redirects from https to http")
        if method == "GET" or (method == "HEAD" and here.origin == there.origin):
            return target
        repeated = method == "POST" and response.status in (307, 308)  # the others would turn it into a GET
        return target if repeated and here.origin == there.origin else None

    def _send(
        self,
        method: str,
        address: Address,
        headers: Mapping[str, str],
        content: Iterable[bytes] | None,
        trusted: bool,
    ) -> httpcore2.Response:
        """Send one request once.

        Raises:
            _NoAnswerError: There is no answer.
            HubError: It cannot be sent at all.
        """
        complete = {
            "Host": address.authority,
            "User-Agent": hub_settings.user_agent(),
            "Accept-Encoding": "identity",
            **headers,
        }
        if trusted and self._token is not None:
            complete["Authorization"] = f"Bearer {self._token}"
        read = self.policy.read_seconds if method in ("GET", "HEAD") else self.policy.commit_seconds
        timeout = {"connect": self.policy.connect_seconds, "read": read, "write": read, "pool": read}
        url = httpcore2.URL(scheme=address.scheme, host=address.host, port=address.port, target=address.target)
        proxy = hub_settings.find_proxy(address)
        request = httpcore2.Request(
            method, url, headers=list(complete.items()), content=content, extensions={"timeout": timeout}
        )
        try:
            response = self._pool(proxy).handle_request(request)
        except Exception as error:  # a malformed answer can make the library trip over anything
            raise self._unanswered(error, address, proxy) from error
        if response.status == 407 and proxy is not None:
            _close(response)
            raise HubError(f"the proxy that {proxy.setting} names wants a login", hint=f"mend {proxy.setting}")
        return response

    def _unanswered(self, error: Exception, address: Address, proxy: Proxy | None) -> Exception:
        """What it means that there is no answer."""
        if any(isinstance(each, ssl.SSLCertVerificationError) for each in _chain(error)):
            hint = "if a proxy re-signs what it passes on, SSL_CERT_FILE must name a file with its certificate"
            return HubError(f"{address.host} has a certificate that is not trusted", hint=hint)
        reasons = (each.strerror for each in _chain(error) if isinstance(each, OSError) and each.strerror)
        if isinstance(error, httpcore2.TimeoutException):
            reason = "it sends too slowly" if self._deadline.left() <= 0 else "it does not answer"
        elif isinstance(error, httpcore2.ProtocolError):
            reason = "its answer is not HTTP"
        else:
            reason = next(reasons, None) or "the connection broke off"
        if proxy is None:
            return _NoAnswerError(reason)
        if isinstance(error, httpcore2.ConnectError | httpcore2.ProxyError):
            return HubError(
                f"the proxy that {proxy.setting} names does not connect to the Hub",
                hint=f"unset {proxy.setting}, or mend it",
            )
        return _NoAnswerError(f"{reason}, by way of the proxy that {proxy.setting} names")

    def _pool(self, proxy: Proxy | None) -> httpcore2.ConnectionPool:
        if proxy not in self._pools:
            through = None
            if proxy is not None:
                at = proxy.address
                url = httpcore2.URL(scheme=at.scheme, host=at.host, port=at.port, target="/")
                through = httpcore2.Proxy(url, auth=proxy.login)
            self._pools[proxy] = httpcore2.ConnectionPool(
                self._certificates, through, keepalive_expiry=2.0, network_backend=Backend(self._deadline)
            )
        return self._pools[proxy]

    def _body(self, response: httpcore2.Response, headers: Mapping[str, str], limit: int) -> bytes:
        """A whole body, decompressed: a Hub that was asked not to compress may have a server before it that does."""
        encoding = headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", "gzip", "deflate", ""):
            raise failure("its answer is compressed, which was not asked for")
        decoder = zlib.decompressobj(47) if encoding in ("gzip", "deflate") else None
        body, received = bytearray(), 0
        for part in response.iter_stream():
            received += len(part)
            try:
                body += decoder.decompress(part, limit + 1 - len(body)) if decoder else part
            except zlib.error:
                raise failure("its answer is damaged") from None
            if max(received, len(body)) > limit:
                raise failure("its answer is too large")
        return bytes(body)

    def _parts(self, response: httpcore2.Response, received: int, size: int) -> Iterator[bytes]:
        """What an answer holds of a file beyond what has been received."""
        headers = _headers(response)
        if response.status not in (200, 206):
            raise failure(f"HTTP status {response.status} for a file")
        if headers.get("content-encoding", "identity") not in ("identity", ""):
            raise failure("a file is compressed, which was not asked for")
        if response.status == 206 and not headers.get("content-range", "").startswith(f"bytes {received}-"):
            raise failure("it sends another part of a file than was asked for")
        skip = received if response.status == 200 else 0
        left = size - received + skip
        length = headers.get("content-length")
        if length is not None and length != str(left):
            raise failure("a file does not have the size that the Hub says")
        for part in response.iter_stream():
            left -= len(part)
            if left < 0:
                raise failure("a file does not have the size that the Hub says")
            if len(part) > skip:
                yield part[skip:]
            skip = max(0, skip - len(part))


class _NoAnswerError(Exception):
    """A request that was not answered; it may help to send it again."""


def _headers(response: httpcore2.Response) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw, value in response.headers:
        name, text = raw.decode("latin-1").lower(), value.decode("latin-1").strip()
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _close(response: httpcore2.Response) -> None:
    with contextlib.suppress(Exception):
        response.close()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
