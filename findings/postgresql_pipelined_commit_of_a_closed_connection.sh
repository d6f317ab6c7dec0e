#!/usr/bin/env bash
# PostgreSQL 16.2: a COMMIT that was sent in a pipeline is done after its connection was closed, and after others saw that it was not.
#
# Guess: whoever loses a connection at COMMIT can ask on another one what became of it: a row that the transaction writes as its last
# one (a token with a unique key) is there, or it is not and the work is done again. Writing the same token waits for the lost
# transaction, since that holds the key.
# Seen: that is so where the token's INSERT was answered before COMMIT was sent. In pipeline mode (libpq's, psycopg's pipeline()) the
# last statements and COMMIT go out in one piece; the server works through what it has received though the client has hung up, and
# until it comes to the INSERT nothing holds the key. Asked meanwhile, INSERT ... ON CONFLICT DO NOTHING finds no token and waits for
# nobody; a moment later the lost transaction is committed.
# So: let the transaction take a lock that others can wait for (pg_advisory_xact_lock of the token), see its answer before sending the
# end, and take the same lock before asking.
#
# Exits 0 while that is so, 1 when it changed. Needs python3 with venv; installs in a temporary folder. As root it runs the server as
# the user nobody.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-deps pgserver==0.1.4 psycopg==3.2.3 psycopg-binary==3.2.3 typing_extensions==4.12.2
chmod 755 "$folder"
cat >"$folder/probe.py" <<'PY'
import contextlib
import os
import pathlib
import subprocess
import sys
import time

import psycopg

TOKEN = "INSERT INTO tokens VALUES ($1)"
ASK = "INSERT INTO tokens VALUES (%s) ON CONFLICT DO NOTHING RETURNING token"
LOCK = "SELECT pg_advisory_xact_lock($1::bigint)"


@contextlib.contextmanager
def server(binaries, folder):
    """The URL of a server of its own."""
    as_user = []
    if os.getuid() == 0:
        as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        os.chown(folder, 65534, 65534)
    data = folder / "data"
    subprocess.run([*as_user, binaries / "initdb", "-D", data, "-U", "p", "-A", "trust"], check=True, capture_output=True)
    command = [*as_user, binaries / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"postgresql://p@/postgres?host={folder}"
        finally:
            process.terminate()


def connected(url, until):
    while True:
        try:
            return psycopg.connect(url, autocommit=True)
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def answered(connection, count):
    """Waits for the results of so many statements, and their end."""
    connection.pipeline_sync()
    connection.flush()
    results = 0
    while results < count + 1:
        result = connection.get_result()
        results += result is not None
        if result is not None:
            assert result.status in (1, 2, 10), result.error_message  # COMMAND_OK, TUPLES_OK, PIPELINE_SYNC


def lose_at_commit(url, token, first=(), last=()):
    """A transaction whose statements `first` are answered; then the connection ends behind `last`, COMMIT with it."""
    connection = psycopg.pq.PGconn.connect(url.encode())
    connection.enter_pipeline_mode()
    for statement in ("BEGIN", *first):
        connection.send_query_params(statement.encode(), [token] if "$1" in statement else [])
    answered(connection, 1 + len(first))
    # Something that takes its time, as an update that waits for a lock or a disk does.
    for statement in ("SELECT pg_sleep(1)", *last, "COMMIT"):
        connection.send_query_params(statement.encode(), [token] if "$1" in statement else [])
    connection.pipeline_sync()
    connection.flush()
    connection.finish()


def committed(connection, token, lock):
    """What somebody who asks is told."""
    with connection.transaction(force_rollback=True):
        if lock:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [token])
        return connection.execute(ASK, [token]).fetchone() is None


def is_there(connection, token, seconds=10):
    until = time.monotonic() + seconds
    while not connection.execute("SELECT 1 FROM tokens WHERE token = %s", [token]).fetchone():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


binaries, folder = map(pathlib.Path, sys.argv[1:])
with server(binaries, folder) as url, connected(url, time.monotonic() + 30) as asking:
    version = asking.execute("SHOW server_version").fetchone()[0]
    asking.execute("CREATE TABLE tokens (token bigint PRIMARY KEY)")
    told = {}
    for way, token, first, last, lock in [
        ("token answered before COMMIT is sent", 1, [TOKEN], [], False),
        ("token and COMMIT in one piece", 2, [], [TOKEN], False),
        ("the same, with a lock that is answered and asked for", 3, [LOCK], [TOKEN], True),
    ]:
        lose_at_commit(url, str(token).encode(), first, last)
        told[way] = committed(asking, token, lock), is_there(asking, token)
        print(f"PostgreSQL {version}, {way}: told {'committed' if told[way][0] else 'not committed'}, "
              f"then {'there' if told[way][1] else 'not there'}")
assert list(told.values()) == [(True, True), (False, True), (True, True)], told
PY
mkdir "$folder/server"
"$folder/venv/bin/python" "$folder/probe.py" "$folder"/venv/lib/python3*/site-packages/pgserver/pginstall/bin "$folder/server"
