"""Calls as bytes on a socket, for clients that behave as no library lets them: that vanish, or never read.

What gRPC itself sends for a call is recorded once and sent again from plain sockets: a connection's compression of headers
begins anew with the connection, so the same bytes always mean the same call.
"""

import socket
import struct
import threading

import grpc

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
DATA, END_STREAM = 0, 1


def receive(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        assert part, "the recorded client ended early"
        data += part
    return data


def record(method, request):
    """The bytes of a server-streaming or unary call, up to the end of its request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        channel = grpc.insecure_channel(
            f"127.0.0.1:{listener.getsockname()[1]}",
            options=[("grpc.use_local_subchannel_pool", 1)],
        )
        call = channel.unary_stream(method, request_serializer=type(request).SerializeToString)
        pending = call(request)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(EMPTY_SETTINGS)
            recorded = receive(connection, len(PREFACE))
            ended = False
            while not ended:
                header = receive(connection, 9)
                payload = receive(connection, int.from_bytes(header[:3], "big"))
                recorded += header + payload
                ended = header[3] == DATA and header[4] & END_STREAM
        pending.cancel()
        channel.close()
    return recorded


class RawCall:
    """A connection over which one recorded call was sent. Nothing is read unless asked for."""

    def __init__(self, address, recorded, receive_buffer=None):
        host, port = address.split(":")
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.connect((host, int(port)))
        self._socket.sendall(recorded)

    def send(self, data):
        self._socket.sendall(data)

    def is_open(self):
        """Whether the server has left it open. What it sent is dropped."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(1 << 16):
                pass
            return False
        except BlockingIOError:
            return True
        finally:
            self._socket.setblocking(True)

    def read_some(self, size):
        """Up to `size` bytes of the answer: blocks until the server has begun it."""
        return len(self._socket.recv(size))

    def vanish(self):
        """The connection is reset, as that of a process that was killed."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def in_threads(count, work):
    """Runs work(index) on `count` threads; the first failure is raised here."""
    failures = []

    def run(index):
        try:
            work(index)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
