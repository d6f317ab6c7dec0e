"""A TCP proxy on loopback that drops connections on which nothing passed for a while, as load balancers do: without a word."""

import contextlib
import selectors
import socket
import threading
import time


class IdleProxy:
    """Passes bytes on to `target` until neither side sent any for `patience` seconds; from then on what comes is swallowed.

    Neither end hears of it: what it sends is taken and never arrives, which is worse than a reset. `dropped` counts such
    connections.
    """

    def __init__(self, target, patience):
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._patience = patience
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.dropped = 0
        self._closing = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self):
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _accept(self):
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._threads.append(threading.Thread(target=self._pass_on, args=(client, server)))
            self._threads[-1].start()

    def _pass_on(self, client, server):
        others = {client: server, server: client}
        moved, dropping = time.monotonic(), False
        with client, server, selectors.DefaultSelector() as selector:
            for end in others:
                selector.register(end, selectors.EVENT_READ)
            while not self._closing:
                for key, _ in selector.select(0.02):
                    try:
                        data = key.fileobj.recv(1 << 16)
                        if data and not dropping:
                            others[key.fileobj].sendall(data)
                    except OSError:
                        return
                    if not data:
                        return
                    moved = time.monotonic()
                if not dropping and time.monotonic() - moved > self._patience:
                    dropping = True
                    self.dropped += 1
