"""Servers around one store, SQLite or PostgreSQL, that checks kill, stop and starve; and what their logs say of steps of jobs."""

import collections
import json
import pathlib
import subprocess

import valuescope as vs
from conftest import PROGRAM, Server
from job_sweeps import FAMILIES, ID, MODEL
from test_shared_store import Database

# Before PostgreSQL's own now() in the search path: the same, and as much later as the check likes.
CLOCK = """
CREATE SCHEMA moved;
CREATE TABLE moved.clock (seconds DOUBLE PRECISION);
INSERT INTO moved.clock VALUES (0);
CREATE FUNCTION moved.now() RETURNS timestamptz STABLE LANGUAGE sql AS
  'SELECT pg_catalog.now() + seconds * interval ''1 second'' FROM moved.clock';
ALTER DATABASE store SET search_path = moved, pg_catalog;
"""


class MovedDatabase(Database):
    """PostgreSQL of its own, whose clock can be moved: leases end when the check wants it."""

    def __init__(self, folder):
        folder.mkdir()
        # PostgreSQL does not run as root, and is to get into what was made for this user alone.
        for parent in folder.parents:
            if parent.stat().st_mode & 0o777 == 0o700:
                parent.chmod(0o711)
        super().__init__(folder)
        self.sql("CREATE DATABASE store", "postgres")
        self.sql(CLOCK)

    def url(self, folder=None):
        """Through the socket in `folder`, by default its own."""
        return f"postgresql://postgres@/store?host={folder or self.folder}"

    def sql(self, statements, database="store"):
        """The first column of what the last one answers."""
        command = ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-U", "postgres"]
        return subprocess.run(
            [*command, "-d", database, "-c", statements],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.strip()

    def advance(self, seconds):
        self.sql(f"UPDATE moved.clock SET seconds = seconds + {seconds}")


class Site:
    """A store, on `database` where there is one, and the servers that were started over it, all with `flags`; none outlives the check."""

    def __init__(self, folder, database=None, flags=()):
        self.folder, self.database, self._flags = pathlib.Path(folder), database, flags
        self._started = []
        self.folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self._started:
            if server.running():
                server.kill()

    def start(
        self, *flags, name="server", root=FAMILIES, models=ID, socket=None, environment=None, program=PROGRAM
    ):  # fmt: skip
        """A server; what starts again under the same name goes on in the same log."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        store = [f"--store=sqlite:{self.folder / 'store.db'}"]
        if self.database:
            url = self.database.url(socket)
            store = [f"--store={url}", f"--artifacts={self.folder / 'blobs'}"]
        server = Server(
            place,
            f"--model_root={root}",
            f"--models={models}",
            "--threads=1",
            *store,
            *self._flags,
            *flags,
            environment=environment,
            program=program,
        )
        self._started.append(server)
        return server

    def leases_end(self):
        """Those of the dead. SQLite's end when it is opened."""
        if self.database:
            self.database.advance(60)


def connected(server, ready=True, model=MODEL):
    client = vs.Client(server.address, timeout=600)
    if ready:
        client.wait_until_ready(model)
    return client


def steps(server, job=None):
    """What a server's log says of the steps of a job, or of all jobs, in order."""
    found = []
    for line in server.log.read_text(errors="replace").splitlines():
        if '"event":"shard"' not in line:
            continue
        step = json.loads(line)
        if job is None or step["job"] == job.split("/")[1]:
            found.append(step)
    return found


def committed(servers, job=None):
    """How often each step (job, shard) was committed, by the logs of servers."""
    done = (s for server in servers for s in steps(server, job) if s["code"] == "OK")
    return collections.Counter((s["job"], s["shard"]) for s in done)
