"""A network that can be made to fail: a TCP proxy on the loopback that delays, cuts, resets and swallows."""

import errno
import math
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Self

from tests.support.ports import LOOPBACK, free_port

_CHUNK = 65_536  # bytes read at once
_HELD_AT_MOST = 1_048_576  # bytes kept for a receiver that does not read; past them its sender has to wait
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on with zero seconds: close() sends RST

End = Literal["closed", "reset"]


@dataclass(eq=False)
class _Side:
    """One of the two sockets of a connection, with what is still to be written to it."""

    socket: socket.socket
    pair: "_Pair"
    outgoing: deque[tuple[float, bytes]] = field(default_factory=deque)  # (when due, bytes); no bytes: end of stream
    held: int = 0
    connected: bool = True
    ended: bool = False  # it has sent its end of stream
    shut: bool = False  # it has been sent one

    def push(self, chunk: bytes, due: float) -> None:
        self.outgoing.append((due, chunk))
        self.held += len(chunk)

    def flush(self, now: float) -> None:
        """Write what is due, as far as the socket takes it."""
        while self.connected and self.outgoing and self.outgoing[0][0] <= now:
            due, chunk = self.outgoing.popleft()
            if not chunk:
                self.shut = True
                self.socket.shutdown(socket.SHUT_WR)
                continue
            try:
                sent = self.socket.send(chunk)
            except BlockingIOError:
                sent = 0
            self.held -= sent
            if sent < len(chunk):
                self.outgoing.appendleft((due, chunk[sent:]))
                return

    def interest(self, now: float) -> int:
        """Return the selector's events that this socket is to be watched for."""
        other = self.pair.other(self)
        reads = not self.ended and self.connected and (other is None or other.held < _HELD_AT_MOST)
        due = bool(self.outgoing) and self.outgoing[0][0] <= now and not self.pair.silent
        writes = due or not self.connected
        return (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if writes else 0)


@dataclass(eq=False)
class _Pair:
    """A client's connection and, unless it was accepted only to be ignored, ours to the server."""

    client: _Side = field(init=False)
    server: _Side | None = None
    silent: bool = False
    held_up: bool = False  # what the client sends is kept until `release`
    lossy: bool = False  # bytes were swallowed: nothing sensible can follow
    asked: bool = False  # the client spoke last
    doomed: bool = False  # `cut_when` has struck: the server's answer is the end
    client_open: bool = True

    def other(self, side: _Side) -> _Side | None:
        return self.server if side is self.client else self.client

    def sides(self) -> list[_Side]:
        return [side for side in (self.client if self.client_open else None, self.server) if side is not None]


@dataclass
class _Trap:
    pattern: bytes
    after_forwarding: bool
    left: int


class Proxy:
    """Forwards connections to a server, and fails on demand.

    Every method takes effect before it returns. One thread serves all the connections; `close`, or the end of the
    with-block, ends it.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self.host = LOOPBACK
        self.port = free_port()
        self._accepted = 0
        self._bytes_up = 0
        self._bytes_down = 0
        self._bytes_swallowed = 0
        self._cuts = 0
        self._round_trips = 0
        self._delay = 0.0
        self._silent_newcomers = False
        self._trap: _Trap | None = None
        self._pairs: set[_Pair] = set()
        self._touched: set[_Pair] = set()  # something has happened to them since they were last looked at
        self._waiting: set[_Pair] = set()  # they hold bytes that are not due or not taken yet
        self._orders: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._looked_at = 0.0  # monotonic time at which what was due was last written
        self._selector = selectors.DefaultSelector()
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._listener: socket.socket | None = None
        self._closing = False
        self._listen()
        self._thread = threading.Thread(target=self._serve, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection and the listening socket, and end the thread."""
        if self._thread.is_alive():
            self._order(self._shut_down)
            self._thread.join()
        self._bell.close()

    # What a network does.

    def lead_to(self, host: str, port: int) -> None:
        """Lead new connections to another server, as a balancer does, or a failover; those that exist stay."""
        self._target = (host, port)

    def pass_through(self) -> None:
        """Heal: listen, forward at once, and let go of `cut_when`. Connections that lost bytes remain silent."""
        self._order(self._heal)

    def delay(self, seconds: float) -> None:
        """Hold back what is sent from now on, for `seconds` in each direction."""
        self._order(lambda: setattr(self, "_delay", seconds))

    def hold(self) -> None:
        """Keep what the clients of the existing connections send, its end too; new connections work."""
        self._order(self._hold)

    def release(self) -> None:
        """Forward, in its order, what `hold` has kept, and all that follows."""
        self._order(self._release)

    def cut(self) -> None:
        """Close all connections in order (FIN), to the client and to the server."""
        self._order(lambda: self._end_all("closed"))

    def reset(self) -> None:
        """Break off all connections (RST), to the client and to the server."""
        self._order(lambda: self._end_all("reset"))

    def refuse(self) -> None:
        """Stop listening: new connections are refused, existing ones stay."""
        self._order(self._stop_listening)

    def swallow(self) -> None:
        """Be a black hole for existing and new connections: accept and read, and forward nothing, not even an end."""
        self._order(lambda: self._silence(existing=True, newcomers=True))

    def swallow_existing(self) -> None:
        """Be a black hole for the existing connections; new ones work."""
        self._order(lambda: self._silence(existing=True, newcomers=False))

    def mute_accept(self) -> None:
        """Accept new connections and never answer them; existing ones work."""
        self._order(lambda: self._silence(existing=False, newcomers=True))

    def cut_when(self, pattern: bytes, *, after_forwarding: bool, times: int = 1) -> None:
        """Close the connection on which the client sends a chunk with `pattern`, for the next `times` such chunks.

        Args:
            pattern: compared byte by byte with what the client sends.
            after_forwarding: False: the server never sees the chunk. True: the server gets it and carries it out; the
                answer is dropped, and then the connection is closed.
            times: 0 lets go.
        """
        self._order(lambda: setattr(self, "_trap", _Trap(pattern, after_forwarding, times)))

    # What went through. What the caller, or a server that answered, did before it asks is counted.

    @property
    def connections(self) -> int:
        """The clients' connections that are open now."""
        self._settle()
        return sum(pair.client_open and not pair.client.ended for pair in tuple(self._pairs))

    @property
    def accepted(self) -> int:
        """All connections so far."""
        self._settle()
        return self._accepted

    @property
    def bytes_up(self) -> int:
        """What the clients sent to the server."""
        self._settle()
        return self._bytes_up

    @property
    def bytes_down(self) -> int:
        """What the server sent to the clients."""
        self._settle()
        return self._bytes_down

    @property
    def bytes_swallowed(self) -> int:
        """What either sent into the silence."""
        self._settle()
        return self._bytes_swallowed

    @property
    def cuts(self) -> int:
        """Connections that `cut_when` ended."""
        self._settle()
        return self._cuts

    @property
    def kept(self) -> int:
        """What the clients have sent since `hold`, and the server has not been sent yet."""
        self._settle()
        return sum(pair.server.held for pair in tuple(self._pairs) if pair.held_up and pair.server is not None)

    def round_trips(self) -> int:
        """Return how often a client asked and the server answered, however many packets either took."""
        self._settle()
        return self._round_trips

    def reset_counters(self) -> None:
        """Set everything that is counted to zero, but for the open `connections`."""

        def reset() -> None:
            self._accepted = self._bytes_up = self._bytes_down = self._cuts = self._round_trips = 0
            self._bytes_swallowed = 0

        self._order(reset)

    def _settle(self) -> None:
        # One round accepts, the next reads the last words, the next the end of the stream behind them.
        for _ in range(4):
            if self._thread.is_alive():
                self._order(lambda: None)

    # Orders: carried out by the thread that owns the sockets, so that no lock is needed.

    def _order(self, action: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._orders.append((action, done))
        if not self._thread.is_alive():
            raise RuntimeError("the proxy is closed")
        # A full pipe wakes the thread as well. A closed one: it was awake, and this was the order to close.
        with suppress(BlockingIOError, BrokenPipeError):
            self._bell.send(b"!")
        done.result(timeout=30)

    def _heal(self) -> None:
        self._delay = 0.0
        self._trap = None
        self._silent_newcomers = False
        for pair in self._pairs:
            pair.silent = pair.lossy
        if self._listener is None:
            self._listen()

    def _silence(self, *, existing: bool, newcomers: bool) -> None:
        self._silent_newcomers = newcomers
        if existing:
            for pair in self._pairs:
                pair.silent = True

    def _hold(self) -> None:
        for pair in self._pairs:
            pair.held_up = True

    def _release(self) -> None:
        for pair in self._pairs:
            pair.held_up = False
            if pair.server is not None:
                pair.server.outgoing = deque((min(due, time.monotonic()), chunk) for due, chunk in pair.server.outgoing)

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        listener.listen(512)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._listener = listener

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            # A forked child may hold the same socket: closing ours alone would leave it listening.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _end_all(self, how: End) -> None:
        for pair in tuple(self._pairs):
            self._end(pair, how)

    def _shut_down(self) -> None:
        self._stop_listening()
        self._end_all("closed")
        self._closing = True

    # The thread.

    def _serve(self) -> None:
        try:
            while not self._closing:
                for key, events in self._selector.select(self._patience()):
                    self._handle(key, events)
                # After the sockets: an order that counts finds everything counted that happened before it was given.
                self._obey()
                self._advance()
        finally:
            self._selector.close()
            self._ear.close()

    def _handle(self, key: selectors.SelectorKey, events: int) -> None:
        if key.fileobj is self._ear:
            self._ear.recv(_CHUNK)
        elif key.fileobj is self._listener:
            self._accept_all()
        elif isinstance(key.data, _Side) and key.data.pair in self._pairs:
            self._touched.add(key.data.pair)
            self._transfer(key.data, events)

    def _obey(self) -> None:
        while self._orders:
            action, done = self._orders.popleft()
            try:
                action()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)
            self._touched |= self._pairs

    def _accept_all(self) -> None:
        assert self._listener is not None
        # OSError: no further one waits, or it has gone again.
        with suppress(OSError):
            while True:
                self._accept(self._listener.accept()[0])

    def _accept(self, client: socket.socket) -> None:
        self._accepted += 1
        pair = _Pair(silent=self._silent_newcomers, lossy=self._silent_newcomers)
        pair.client = _Side(self._plain(client), pair)
        self._pairs.add(pair)
        self._touched.add(pair)
        if pair.silent:
            return
        pair.server = _Side(self._plain(socket.socket()), pair, connected=False)
        if pair.server.socket.connect_ex(self._target) not in (0, errno.EINPROGRESS):
            self._end(pair, "reset")

    @staticmethod
    def _plain(plug: socket.socket) -> socket.socket:
        plug.setblocking(False)
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plug

    def _transfer(self, side: _Side, events: int) -> None:
        try:
            if not side.connected:
                error = side.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, "the server cannot be reached")
                side.connected = True
            if events & selectors.EVENT_READ:
                self._receive(side, side.socket.recv(_CHUNK))
        except BlockingIOError:
            pass
        except OSError:
            self._broken(side)

    def _broken(self, side: _Side) -> None:
        """One end is gone without a good-bye: so is the other, unless it is not to hear of it."""
        if side.pair.silent:
            self._lose(side)
        elif side.pair.held_up and side is side.pair.client:
            self._keep_its_end(side.pair)
        else:
            self._end(side.pair, "reset")

    def _keep_its_end(self, pair: _Pair) -> None:
        """The client is gone; the server will hear so after what the client has sent."""
        self._close(pair.client.socket, "closed")
        pair.client_open = False
        if pair.server is not None:
            pair.server.push(b"", math.inf)

    def _lose(self, side: _Side) -> None:
        """Forget one end of a silent connection; the other end hears nothing."""
        pair = side.pair
        pair.lossy = True
        self._close(side.socket, "closed")
        if side is pair.client:
            pair.client_open = False
        else:
            pair.server = None
        if not pair.sides():
            self._pairs.discard(pair)

    def _receive(self, side: _Side, chunk: bytes) -> None:
        pair = side.pair
        if pair.silent:
            pair.lossy = True
            self._bytes_swallowed += len(chunk)
            if not chunk:
                self._lose(side)
            return
        other = pair.other(side)
        if not chunk:
            side.ended = True
        elif side is pair.client:
            if not self._count_question(pair, chunk):
                return
        elif not self._count_answer(pair, chunk):
            return
        if other is not None:
            held_up = pair.held_up and side is pair.client
            other.push(chunk, math.inf if held_up else time.monotonic() + self._delay)

    def _count_question(self, pair: _Pair, chunk: bytes) -> bool:
        """Count what the client sends, before anybody else sees it; return whether to forward it."""
        trap = self._trap
        if trap and trap.left and trap.pattern in chunk:
            trap.left -= 1
            pair.doomed = True
            if not trap.after_forwarding:
                self._strike(pair)
                return False
        self._bytes_up += len(chunk)
        pair.asked = True
        return True

    def _count_answer(self, pair: _Pair, chunk: bytes) -> bool:
        if pair.doomed:
            self._strike(pair)
            return False
        self._bytes_down += len(chunk)
        self._round_trips += pair.asked
        pair.asked = False
        return True

    def _strike(self, pair: _Pair) -> None:
        self._cuts += 1
        self._end(pair, "closed")

    def _advance(self) -> None:
        """Write what is due, and watch each socket for what may come next."""
        now = self._looked_at = time.monotonic()
        busy = (self._touched | self._waiting) & self._pairs
        self._touched.clear()
        self._waiting.clear()
        for pair in busy:
            if not pair.silent:
                self._flush(pair, now)
            if pair not in self._pairs:
                continue
            for side in pair.sides():
                self._watch(side, side.interest(now))
            if any(side.outgoing for side in pair.sides()):
                self._waiting.add(pair)

    def _flush(self, pair: _Pair, now: float) -> None:
        for side in pair.sides():
            try:
                side.flush(now)
            except OSError:
                self._broken(side)
                return
        left = pair.client_open or pair.server is None or pair.server.ended  # else the server has not answered
        if left and all(side.shut for side in pair.sides()):
            self._end(pair, "closed")

    def _watch(self, side: _Side, events: int) -> None:
        watched = self._selector.get_map().get(side.socket)
        if watched is None:
            if events:
                self._selector.register(side.socket, events, side)
        elif not events:
            self._selector.unregister(side.socket)
        elif watched.events != events:
            self._selector.modify(side.socket, events, side)

    def _patience(self) -> float | None:
        """Return for how many seconds nothing falls due; None: until something happens."""
        due = (side.outgoing[0][0] for pair in self._waiting for side in pair.sides() if side.outgoing)
        # What was due at the last look waits for its socket, or is silenced: nothing to wake up for. What has
        # fallen due since then is this call's to wait for.
        now = time.monotonic()
        return min((max(0.0, when - now) for when in due if self._looked_at < when < math.inf), default=None)

    def _end(self, pair: _Pair, how: End) -> None:
        for side in pair.sides():
            self._close(side.socket, how)
        pair.client_open = False
        self._pairs.discard(pair)

    def _close(self, plug: socket.socket, how: End) -> None:
        if plug in self._selector.get_map():
            self._selector.unregister(plug)
        with suppress(OSError):  # never connected, or the other end was quicker
            if how == "reset":
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                # A forked child may hold the same socket: closing ours alone would not send the end.
                plug.shutdown(socket.SHUT_RDWR)
        plug.close()
