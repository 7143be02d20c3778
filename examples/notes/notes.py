"""Notes: a small service on SQLite. Python's standard library only; it has never heard of Rowcast.

    python3 notes.py --database notes.db --http 127.0.0.1:8002
"""

import argparse
import json
import signal
import sqlite3
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Keys are UUIDs or natural: two nodes that add rows at the same moment never pick the same one by accident.
TABLES = """
    CREATE TABLE IF NOT EXISTS notes (
        id         TEXT PRIMARY KEY NOT NULL,
        title      TEXT NOT NULL,
        body       TEXT NOT NULL DEFAULT '',
        created_at REAL NOT NULL,
        changed_at REAL NOT NULL
    );
    CREATE TABLE IF NOT EXISTS tags (
        note_id TEXT NOT NULL REFERENCES notes (id) ON DELETE CASCADE,
        tag     TEXT NOT NULL COLLATE NOCASE,
        PRIMARY KEY (note_id, tag)
    );
"""


class Wrong(Exception):
    """An answer other than 200: its status, and why."""

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status = status


class Notes:
    """The rows. One connection a thread, as Python's sqlite3 wants it."""

    def __init__(self, path):
        self.path = path
        self.local = threading.local()
        database = self.connection()
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(TABLES)

    def connection(self):
        if not hasattr(self.local, "database"):
            # Busy timeout 5 s; transactions are begun by hand, and the writing ones IMMEDIATE.
            self.local.database = sqlite3.connect(self.path, timeout=5, isolation_level=None)
            self.local.database.row_factory = sqlite3.Row
            self.local.database.execute("PRAGMA foreign_keys = ON")
        return self.local.database

    def close(self):
        """Closes this thread's connection."""
        if hasattr(self.local, "database"):
            self.local.database.close()
            del self.local.database

    def writing(self, work):
        database = self.connection()
        database.execute("BEGIN IMMEDIATE")
        try:
            result = work(database)
            database.execute("COMMIT")
            return result
        except BaseException:
            database.execute("ROLLBACK")
            raise

    def list(self, tag=None):
        where = "WHERE id IN (SELECT note_id FROM tags WHERE tag = ?)" if tag else ""
        rows = self.connection().execute(
            f"SELECT * FROM notes {where} ORDER BY created_at, id", [tag] if tag else []
        )
        return [self.with_tags(row) for row in rows.fetchall()]

    def get(self, note_id):
        row = self.connection().execute("SELECT * FROM notes WHERE id = ?", [note_id]).fetchone()
        if row is None:
            raise Wrong(404, "no such note")
        return self.with_tags(row)

    def with_tags(self, row):
        tags = self.connection().execute("SELECT tag FROM tags WHERE note_id = ? ORDER BY tag", [row["id"]])
        return {**row, "tags": [tag for (tag,) in tags.fetchall()]}

    def add(self, title, body, tags):
        note_id, now = str(uuid.uuid4()), time.time()

        def work(database):
            database.execute("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", [note_id, title, body, now, now])
            self.tag(database, note_id, tags)

        self.writing(work)
        return self.get(note_id)

    def change(self, note_id, title, body, tags):
        def work(database):
            done = database.execute(
                "UPDATE notes SET title = ?, body = ?, changed_at = ? WHERE id = ?", [title, body, time.time(), note_id]
            )
            if done.rowcount == 0:
                raise Wrong(404, "no such note")
            database.execute("DELETE FROM tags WHERE note_id = ?", [note_id])
            self.tag(database, note_id, tags)

        self.writing(work)
        return self.get(note_id)

    def tag(self, database, note_id, tags):
        database.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", [(note_id, tag) for tag in tags])

    def remove(self, note_id):
        done = self.writing(lambda database: database.execute("DELETE FROM notes WHERE id = ?", [note_id]))
        if done.rowcount == 0:
            raise Wrong(404, "no such note")


class Api(BaseHTTPRequestHandler):
    """GET and POST /notes, GET, PUT and DELETE /notes/<id>, GET /notes?tag=<tag>."""

    notes = None
    protocol_version = "HTTP/1.1"

    def handle_one(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))  # Always, so the connection can go on.
        url = urllib.parse.urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        try:
            if parts == ["healthz"] and self.command == "GET":
                self.answer(200, "ok")
            elif parts[0] != "notes" or len(parts) > 2:
                raise Wrong(404, "no such page")
            elif len(parts) == 1:
                self.all_notes(urllib.parse.parse_qs(url.query))
            else:
                self.one_note(parts[1])
        except Wrong as wrong:
            self.answer(wrong.status, {"error": str(wrong)})
        except sqlite3.Error as error:
            self.answer(500, {"error": str(error)})

    def all_notes(self, query):
        if self.command == "GET":
            self.answer(200, self.notes.list(query.get("tag", [None])[0]))
        elif self.command == "POST":
            self.answer(201, self.notes.add(*self.given()))
        else:
            raise Wrong(405, "GET or POST")

    def one_note(self, note_id):
        if self.command == "GET":
            self.answer(200, self.notes.get(note_id))
        elif self.command == "PUT":
            self.answer(200, self.notes.change(note_id, *self.given()))
        elif self.command == "DELETE":
            self.notes.remove(note_id)
            self.answer(204)
        else:
            raise Wrong(405, "GET, PUT or DELETE")

    do_GET = do_POST = do_PUT = do_DELETE = handle_one

    def given(self):
        try:
            given = json.loads(self.body)
            title, body, tags = given["title"], given.get("body", ""), given.get("tags", [])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Wrong(400, 'wanted: {"title": …, "body": …, "tags": […]}') from None
        if not all(isinstance(text, str) for text in (title, body)) or not isinstance(tags, list):
            raise Wrong(400, "title and body are text, tags a list")
        if not all(isinstance(tag, str) for tag in tags):
            raise Wrong(400, "a tag is text")
        return title, body, tags

    def answer(self, status, value=None):
        body = b"" if value is None else (json.dumps(value) + "\n").encode()
        self.send_response(status)
        if value is not None:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def finish(self):
        super().finish()
        self.notes.close()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main():
    parser = argparse.ArgumentParser(description="Keeps notes and their tags, in SQLite.")
    parser.add_argument("--database", default="notes.db")
    parser.add_argument("--http", default="127.0.0.1:8002")
    parser.add_argument("--migrate", action="store_true", help="make the database and its tables, and end")
    arguments = parser.parse_args()
    host, port = arguments.http.rsplit(":", 1)
    Api.notes = Notes(arguments.database)
    if arguments.migrate:
        return
    server = Server((host, int(port)), Api)
    # shutdown() waits for serve_forever(), which runs in this very thread: so it is called from another one.
    stop = lambda *_: threading.Thread(target=server.shutdown).start()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"notes: serving http://{arguments.http} on SQLite {sqlite3.sqlite_version}", flush=True)
    server.serve_forever()
    server.server_close()
    Api.notes.close()


if __name__ == "__main__":
    main()
