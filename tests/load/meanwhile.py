"""What happens beside the calls of a test, on a thread of its own."""

import threading

import grpc


class Meanwhile:
    """Calls `step` again and again from entering to leaving, `pause` seconds apart; what it raises is raised on leaving."""

    pause = 0.0

    def __init__(self):
        self._stop, self._failure = threading.Event(), None
        self._thread = threading.Thread(target=self._run)

    def step(self):
        raise NotImplementedError

    def _run(self):
        try:
            while not self._stop.wait(self.pause):
                self.step()
        except BaseException as error:
            self._failure = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        self._thread.join()
        if self._failure and kind is None:  # what the test itself raised comes first
            raise self._failure


class OtherClient(Meanwhile):
    """One that calls on a connection of its own, which it shares with no channel."""

    def __init__(self, address):
        super().__init__()
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(address, options=options)

    def __exit__(self, *raised):
        with self.channel:
            super().__exit__(*raised)
