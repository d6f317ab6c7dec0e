"""A valuescope-server of one's own on loopback, for as long as a `with` lasts."""

import collections
import contextlib
import re
import signal
import subprocess

import valuescope as vs

# Whatever of these comes while the server starts or stops, it is not left behind.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ServerEnded(Exception):
    """The server ended by itself, or did not start."""


@contextlib.contextmanager
def local_server(program, models, model, folder):
    """Starts `program` with its store and log in `folder`, gives its address, "HOST:PORT", and drains it at the end.

    Args:
        program: path of valuescope-server.
        models: folder of models.
        model: name of the one that is loaded.
        folder: a path that exists.

    Raises:
        ServerEnded: it did not start, or ended before calls that failed.
    """
    command = [
        # Where this program is killed, nobody else drains the server.
        "setpriv",
        "--pdeathsig=TERM",
        program,
        "--listen=127.0.0.1:0",
        "--metrics_listen=127.0.0.1:0",
        f"--model_root={models}",
        f"--models={model}",
        f"--store=sqlite:{folder / 'store.db'}",
        # A sweep's point asks a dozen questions: several together fill the model's steps.
        "--job_workers=4",
        "--keep_jobs=never",
        "--keep_request_ids=never",
        "--drain_timeout=10s",
    ]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    with log_of(folder).open("wb") as log:
        # A session of its own: Ctrl-C in a terminal reaches whoever started it, and not the server.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        announced = re.fullmatch(r"listening on (\S+)\n", process.stdout.readline())
        if not announced:
            raise ServerEnded("the server did not start")
        yield announced.group(1)
    except vs.ValuescopeError as error:
        # A connection is lost a moment before the process is gone.
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise ServerEnded(f"the server ended with exit code {process.wait(1)}") from error
        raise
    finally:
        _stop(process)


def log_of(folder):
    """Where the server's log is."""
    return folder / "server.log"


def last_lines(file, most):
    """The end of a file of text; empty where there is none."""
    if not file.exists():
        return ""
    with file.open(encoding="utf-8", errors="replace") as lines:
        return "".join(collections.deque(lines, most))


def _stop(process):
    handlers = {one: signal.signal(one, signal.SIG_IGN) for one in ENDING}
    process.terminate()
    process.wait()
    process.stdout.close()
    for one, handler in handlers.items():
        signal.signal(one, handler)
