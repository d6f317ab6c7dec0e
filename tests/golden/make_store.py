"""Makes stores/NAME: a store that the server of the moment filled, and what it answered. Run before records get another format:

    VALUESCOPE_BUILD=build python tests/golden/make_store.py version_N

store.sql     the database, as text
artifacts/    the stored bytes
answers.json  what its own server said of it after a restart; see tests/integration/test_earlier_stores.py
"""

import json
import pathlib
import shutil
import sqlite3
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "integration"))

import conftest  # noqa: E402, F401
import test_earlier_stores as stores  # noqa: E402


def dump(database):
    """The database as text; its header tells whose it is."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    return "\n".join([f"PRAGMA application_id = {application};", *database.iterdump()]) + "\n"


def make(folder, directory):
    server = stores.start(directory)
    with server.client(stores.MODEL) as client:
        stores.fill(client)
    assert server.stop() == 0
    database = sqlite3.connect(directory / "store.db")
    (folder / "store.sql").write_text(dump(database))
    database.close()
    artifacts = directory / "store.db.artifacts"
    shutil.copytree(artifacts, folder / "artifacts", ignore=shutil.ignore_patterns(".lock"))
    again = stores.start(directory)
    with again.client(stores.MODEL) as client:
        answers = {
            "kept": stores.kept(client),
            "used": stores.used(client),
            "made again": stores.made_again(client),
        }
    assert again.stop() == 0
    (folder / "answers.json").write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    made = HERE / "stores" / sys.argv[1]
    made.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        make(made, pathlib.Path(temporary))
