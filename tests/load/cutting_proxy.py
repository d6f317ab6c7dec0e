"""Stands between servers and PostgreSQL's socket, and cuts connections at random, in the midst of whatever passes."""

import contextlib
import pathlib
import random
import selectors
import socket
import threading

SOCKET = ".s.PGSQL.5432"


class CuttingProxy:
    """A socket in `folder` before the one in `target`. Each piece that passes, of either side, is the last of its connection with
    probability `share`: it arrives, and what would have come behind it does not. `cuts` counts them.
    """

    def __init__(self, folder, target, share, seed=1):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self._target, self._share = str(pathlib.Path(target) / SOCKET), share
        self._draws = random.Random(seed)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / SOCKET))
        self._listener.listen(64)
        self.cuts, self._closing = 0, False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self):
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._pass_on, args=(client,)))
            self._threads[-1].start()

    def _pass_on(self, client):
        with client, socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as ready:
            with contextlib.suppress(OSError):  # the database is away, or either end is
                server.connect(self._target)
                for end in (client, server):
                    ready.register(end, selectors.EVENT_READ)
                while not self._closing:
                    for key, _ in ready.select(0.05):
                        data = key.fileobj.recv(1 << 16)
                        if not data:
                            return
                        (server if key.fileobj is client else client).sendall(data)
                        if self._draws.random() < self._share:
                            self.cuts += 1
                            return
