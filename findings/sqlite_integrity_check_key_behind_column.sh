#!/usr/bin/env bash
# SQLite 3.40.1: integrity_check finds NULLs in a sound table without rowids whose key is not its first columns.
#
# Guess: what `PRAGMA integrity_check` reports is damage, so a server may hold its store against it (at start, after a full disk, in a
# test) and believe the answer. The order in which a table names its columns is no matter to it.
# Seen: of a WITHOUT ROWID table (job NOT NULL, tenant NOT NULL, model NOT NULL, PRIMARY KEY (job, model)) with one whole row it answers
# "NULL value in t.tenant", while no row has a NULL there; with the column behind the key, or with rowids, it answers "ok". 3.46.1
# answers "ok" to all of them. 3.40.1 is what Debian 12 has.
# So: where such stores are checked by that version, name the key's columns first.
#
# Exits 0 while that is so, 1 when 3.40.1 finds nothing or 3.46.1 finds something. Needs python3 with venv; installs in a temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PY'
import apsw

TABLES = {
    "column within the key": "job INTEGER NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL",
    "column behind the key": "job INTEGER NOT NULL, model TEXT NOT NULL, tenant TEXT NOT NULL",
}
answers = {}
for order, columns in TABLES.items():
    for rowids in ("", "WITHOUT ROWID"):
        run = apsw.Connection(":memory:").cursor().execute
        run(f"CREATE TABLE t ({columns}, PRIMARY KEY (job, model)) {rowids}")
        run("INSERT INTO t (job, tenant, model) VALUES (1, 'lab', 'm')")
        ((nulls,),) = run("SELECT count(*) FROM t WHERE tenant IS NULL")
        ((answer,),) = run("PRAGMA integrity_check")
        assert nulls == 0
        answers[order, rowids] = answer
        print(f"{apsw.sqlitelibversion()}: {order}, {rowids or 'with rowids'}: {answer}")
alarm = {"NULL value in t.tenant"} if apsw.sqlitelibversion() == "3.40.1" else {"ok"}
assert {answers["column within the key", "WITHOUT ROWID"]} == alarm
assert {answer for case, answer in answers.items() if case != ("column within the key", "WITHOUT ROWID")} == {"ok"}
PY
for version in 3.40.1.0 3.46.1.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/python" -m pip install -q --disable-pip-version-check "apsw==$version"
  "$folder/$version/bin/python" "$folder/probe.py" || exit 1
done
