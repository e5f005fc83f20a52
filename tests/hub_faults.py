"""All that can be wrong with an answer of the small Hub, out of malice or because the line is bad."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

MEBIBYTE = 2**20


@dataclass
class Fault:
    """What goes wrong with requests whose line, such as `GET /api/models/a/b`, has a match for `where`.

    Attributes:
        kind: "status", "hang" (no answer at all), "stall" (half of the body, then silence), "cut" (half of the body,
            then the connection closes), "flip" (a wrong byte), "trickle" (the body, a byte at a time), "garbage" (not
            JSON), "headers" (as usual, but with other headers), "drip" (status and headers, a byte at a time), "noise"
            (not HTTP), "waiting" (for ever that the answer is on its way), "flood" (a body, a header, or many headers,
            without end), "bomb" (a small body that unpacks to gigabytes), "body" (another body).
        where: A regular expression.
        status: For "status".
        headers: For "status", "headers", "flood" and "bomb"; a list has the header several times, None takes it away.
        times: How many requests go wrong before all is well.
        seconds: Between the bytes of "trickle" and "drip", and before a "status".
        data: For "body" and "noise".
        what: For "flood": "body", "header" or "headers".
    """

    kind: str
    where: str
    status: int = 500
    headers: dict[str, str | list[str] | None] = field(default_factory=dict)
    times: int = 10**9
    seconds: float = 1.0
    data: bytes = b""
    what: str = "body"


def interrupt(handler, fault: Fault) -> bool:
    """Answer a request in a way of the fault's own; whether that was all."""
    handler.close_connection = fault.kind != "status"
    match fault.kind:
        case "hang":
            handler.hub.stop.wait()
        case "status":
            handler.hub.stop.wait(fault.seconds if fault.seconds != 1.0 else 0.0)
            headers = {"Content-Type": "application/json", **fault.headers}
            handler.answer(fault.status, fault.data or b"{}", headers)
        case "noise":
            handler.wfile.write(fault.data)
        case "waiting":
            while not handler.hub.stop.wait(0.01):
                handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
        case "flood":
            for part in _flood(fault):
                if handler.hub.stop.is_set():
                    break
                handler.wfile.write(part)
        case "bomb":
            handler.answer(200, bomb(fault.headers.get("Content-Encoding")), {"ETag": '"x"', **fault.headers})
        case _:
            handler.close_connection = False
            return False
    return True


def send_slowly(handler, data: bytes, seconds: float) -> None:
    """A byte at a time."""
    for byte in data:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        if handler.hub.stop.wait(seconds):
            return


def send_head(handler, fault: Fault | None) -> None:
    """Status and headers."""
    if fault is not None and fault.kind == "drip":
        lines = b"".join(handler._headers_buffer) + b"X-Padding: " + b"x" * 10_000 + b"\r\n\r\n"
        handler._headers_buffer = []
        send_slowly(handler, lines, fault.seconds)
    else:
        handler.end_headers()


def send_body(handler, data: bytes, fault: Fault | None) -> None:
    """The body, whole or not."""
    match fault and fault.kind:
        case "cut" | "stall":
            handler.wfile.write(data[: len(data) // 2])
            handler.wfile.flush()
            if fault.kind == "stall":
                handler.hub.stop.wait()
            handler.close_connection = True
            handler.connection.close()
        case "trickle":
            send_slowly(handler, data, fault.seconds)
        case "flip":
            handler.wfile.write(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
        case _:
            handler.wfile.write(data)


def bomb(encoding: str | None, size: int = 3900 * MEBIBYTE) -> bytes:
    """JSON of almost 4 GB, in a few megabytes or fewer."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    head = packer.compress(b'{"sha": "') + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b" " * (16 * MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * (size // (16 * MEBIBYTE))


def _flood(fault: Fault) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    block = b"x" * MEBIBYTE
    if fault.what == "body":
        yield b'Transfer-Encoding: chunked\r\n\r\n9\r\n{"sha": "\r\n'
        for _ in range(3000):
            yield b"100000\r\n" + block + b"\r\n"
    elif fault.what == "header":
        yield b"X-Long: "
        for _ in range(3000):
            yield block
    else:
        for number in range(30_000):
            yield b"".join(b"X-%d-%d: y\r\n" % (number, each) for each in range(1000))
