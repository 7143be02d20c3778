"""Rowcast at work: `./dev demo`. Real SQLite files, a real nats-server, real services, one sidecar beside each.

Every number it prints was measured in this run. It ends with exit code 1 when anything does not happen in time.
Python's standard library only.
"""

import argparse
import http.client
import os
import pathlib
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import textwrap
import threading
import time

from cluster import Cluster, Failure, call_on, own_folder

ROOT = pathlib.Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "examples" / "inventory"
TABLES = {"items": "id", "movements": "id"}

ON_TERMINAL = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def style(code, text):
    return f"\033[{code}m{text}\033[0m" if ON_TERMINAL else text


def say(text=""):
    print(text, flush=True)


def heading(text):
    say()
    say(style("1", text))


def fact(label, text):
    for line in textwrap.wrap(text, 104):
        say(f"  {label:<14}{line}")
        label = ""


def took(seconds):
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def build(release):
    """Builds both programs and returns where they are."""
    heading("Building rowcast and the example service")
    start = time.monotonic()
    options = ["--locked", *(["--release"] if release else []), *([] if sys.stderr.isatty() else ["--quiet"])]
    for folder, package in ((ROOT, ["-p", "rowcast"]), (INVENTORY, [])):
        if subprocess.run(["cargo", "build", *package, *options], cwd=folder, stdin=subprocess.DEVNULL).returncode:
            raise Failure(f"cargo build failed in {folder}")
    profile = "release" if release else "debug"
    fact("done", f"{time.monotonic() - start:.1f} s, {profile} build" + ("" if release else " (--release is faster)"))

    def built(folder, name):
        target = os.environ.get("CARGO_TARGET_DIR")
        return (folder / target if target else folder / "target") / profile / name

    nats = os.environ.get("NATS_SERVER") or shutil.which("nats-server")
    if not nats:
        raise Failure("no nats-server: start the demo with ./dev demo, which fetches one")
    return {"rowcast": built(ROOT, "rowcast"), "inventory": built(INVENTORY, "inventory"), "nats-server": nats}


class Story:
    """The acts, in order. Each leaves the cluster well and every node equal."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.written = 0

    def tell(self):
        self.a_service_alone()
        self.two_more_nodes()
        self.rows_arrive()
        self.a_sidecar_is_killed()
        self.nats_is_killed()
        self.a_newcomer()
        self.all_rows_are_equal()

    # === acts ===

    def a_service_alone(self):
        heading("A service with data of its own gets a sidecar")
        self.cluster.start_nats()
        version = subprocess.run([self.cluster.programs["nats-server"], "--version"], capture_output=True, text=True)
        fact("nats-server", f"{version.stdout.split()[-1]} on {self.cluster.nats_address}")
        a = self.cluster.add_node("a")
        a.start_service()
        self.add_items(a, 20)
        fact("node a", "its service ran alone and has 20 items")
        seconds = a.until_ready(30, a.start_sidecar(first=True))
        fact("", f"rowcast run --first: READY after {took(seconds)}")

    def two_more_nodes(self):
        heading("Two more nodes, with no database file at all")
        b, c = self.cluster.add_node("b"), self.cluster.add_node("c")
        for node in (b, c):
            seconds = node.until_ready(60, node.start_sidecar(starts_service=node is c))
            rows = len(contents_of(node.database)["items"])
            if rows != self.written:
                raise Failure(f"node {node.name} said READY with {rows} of {self.written} items")
            fact(f"node {node.name}", f"READY after {took(seconds)}, with all {rows} items")
        b.start_service()
        self.cluster.within(20, "the sidecar of c starts the service", c.answers, c.sidecar)
        fact("", "c's service was started by its sidecar: rowcast run … --exec -- inventory …")

    def rows_arrive(self):
        heading("Rows written through one service are read from the others")
        a, b, c = (self.cluster.nodes[name] for name in "abc")
        self.arrivals("100 items", lambda: self.add_item(a), lambda item: f"/items/{item['id']}", (b, c))
        fact("", "written on a, which announced each: captured from change events")

        movements = f"/items/{self.add_item(b)['id']}/movements"
        self.until_equal()
        self.arrivals(
            "100 bookings", lambda: b.write("POST", movements, {"delta": 1})[1]["movement"], lambda _: movements, (a, c)
        )
        fact("", "written on b, which said nothing of them: captured by triggers")

        headers, _ = c.write("POST", "/items?ack=1", an_item("acknowledged"))
        self.written += 1
        number = headers.get("Sequence-Number")
        if number is None:
            raise Failure("c's sidecar did not acknowledge the change event")
        fact("?ack=1 on c", f"recorded by c's sidecar, hardened, under sequence number {number}")
        self.until_equal()

    def a_sidecar_is_killed(self):
        heading("kill -9 of b's sidecar")
        a, b = self.cluster.nodes["a"], self.cluster.nodes["b"]
        b.sidecar.kill()
        fact("meanwhile", f"b's service takes {self.add_items(b, 200)}")
        fact("", f"a's service takes {self.add_items(a, 200)}")
        on_a, on_b = self.count(a), self.count(b)
        fact("nothing moves", f"a and b have {on_a} items each, of {self.written}")
        if not on_a == on_b == self.written - 200:
            raise Failure("rows moved although the sidecar was dead")
        seconds = b.until_ready(60, b.start_sidecar())
        fact("back", f"READY after {took(seconds)}")
        fact("caught up", f"all nodes hold all {self.written} items {took(self.until_equal())} later")

    def nats_is_killed(self):
        heading("kill -9 of nats-server")
        self.cluster.nats.kill()
        nodes = [self.cluster.nodes[name] for name in "abc"]
        for node in nodes:
            fact("meanwhile" if node is nodes[0] else "", f"{node.name}'s service takes {self.add_items(node, 100)}")
        state, reasons = nodes[0].readiness()
        alone = ["it goes on with all that it knows of"] if state == "READY" else []
        fact("a's /readyz", " · ".join([str(state), *reasons, *alone]))
        self.cluster.start_nats()
        fact("back", f"all nodes hold all {self.written} items after {took(self.until_equal())}")
        for node in nodes:
            node.until_ready(30, 0)

    def a_newcomer(self):
        heading("A fourth node, with no database file")
        d = self.cluster.add_node("d")
        start = d.start_sidecar(starts_service=True)
        seen = []

        def watch():
            state, reasons = d.readiness()
            words = " · ".join([state or "", *reasons])
            if state == "NOT READY" and (not seen or seen[-1] != words):
                seen.append(words)
            return state == "READY"

        self.cluster.within(60, "node d is READY", watch, d.sidecar, tell=d.readiness)
        seconds = time.monotonic() - start
        rows = len(contents_of(d.database)["items"])
        if not seen:
            raise Failure("node d was never seen NOT READY")
        if rows != self.written:
            raise Failure(f"node d said READY with {rows} of {self.written} items")
        for words in seen[:4]:
            fact("d's /readyz", words)
        fact("", f"READY after {took(seconds)}, with all {rows} items")
        self.cluster.within(20, "the sidecar of d starts the service", d.answers, d.sidecar)
        self.add_item(d)
        fact("", f"an item written through d is on a, b and c {took(self.until_equal())} later")

    def all_rows_are_equal(self):
        heading("Comparing the four files, every table, row for row, type for type")
        self.until_equal()
        contents = {node.name: contents_of(node.database) for node in self.cluster.nodes.values()}
        for table in TABLES:
            rows = {name: content[table] for name, content in contents.items()}
            if any(other != rows["a"] for other in rows.values()):
                raise Failure(f"the rows of {table} differ")
            fact(table, f"{len(rows['a'])} rows, equal on {', '.join(rows)}")
        if len(contents["a"]["items"]) != self.written:
            raise Failure(f"{self.written} items were written")

    # === parts ===

    def add_item(self, node):
        item = node.write("POST", "/items", an_item(f"item {self.written} of {node.name}"))[1]
        self.written += 1
        return item

    def add_items(self, node, count):
        start = time.monotonic()
        for _ in range(count):
            self.add_item(node)
        return f"{count} writes, 0 failed, in {took(time.monotonic() - start)}"

    def count(self, node):
        return len(node.call("GET", "/items")[2])

    def arrivals(self, label, write, path, nodes, count=100):
        """Writes rows one by one. Measures, for each, from the writer's answer until the row is read elsewhere."""
        readers = {node: http.client.HTTPConnection(node.service_http, timeout=20) for node in nodes}
        times = {node: [] for node in nodes}

        def watch(node, row, written_at):
            def seen():
                status, _, body = call_on(readers[node], "GET", path(row))
                rows = body if isinstance(body, list) else [body]
                return status == 200 and any(one["id"] == row["id"] for one in rows)

            try:
                self.cluster.within(20, "a row arrives", seen)
                times[node].append(time.monotonic() - written_at)
            except (Failure, OSError, http.client.HTTPException):
                pass  # Counted below.

        for _ in range(count):
            row = write()
            now = time.monotonic()
            watchers = [threading.Thread(target=watch, args=[node, row, now], daemon=True) for node in nodes]
            for watcher in watchers:
                watcher.start()
            for watcher in watchers:
                watcher.join()
        for node, measured in times.items():
            readers[node].close()
            if len(measured) != count:
                raise Failure(f"{count - len(measured)} of {count} rows did not arrive on {node.name}")
            middle, slowest = statistics.median(measured), max(measured)
            fact(label, f"read on {node.name} {took(middle)} after the write (median), {took(slowest)} (slowest)")
            label = ""

    def until_equal(self):
        """Waits until all files hold the same rows, and all that were written. Returns how long that took."""
        start = time.monotonic()
        last = {}

        def equal():
            last.update({name: contents_of(node.database) for name, node in self.cluster.nodes.items()})
            first = last["a"]
            return len(first["items"]) == self.written and all(other == first for other in last.values())

        def tell():
            sizes = {name: {table: len(rows) for table, rows in tables.items()} for name, tables in last.items()}
            return f"{self.written} items were written; the files hold {sizes}"

        self.cluster.within(60, "all nodes hold the same rows", equal, tell=tell)
        return time.monotonic() - start


def an_item(name):
    return {"name": name, "quantity": 10, "price": 0.1 + 0.2}


def contents_of(database):
    """All rows of a file with the types of their cells, read beside the service as any other process may."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
    try:
        content = {}
        for table, key in TABLES.items():
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            cells = ", ".join(f"{column}, typeof({column})" for column in columns)
            content[table] = connection.execute(f"SELECT {cells} FROM {table} ORDER BY {key}").fetchall() if columns else []
        return content
    finally:
        connection.close()


def show_addresses(cluster):
    heading("The cluster is running")
    say(f"  {'node':<6}{'service':<32}sidecar: /readyz /status /metrics")
    for node in cluster.nodes.values():
        say(f"  {node.name:<6}{'http://' + node.service_http + '/items':<32}http://{node.sidecar_http}")
    rowcast = cluster.programs["rowcast"]
    say(f"  files and logs  {cluster.folder}")
    say(f"  try             {rowcast} status --http {cluster.nodes['a'].sidecar_http}")
    a = cluster.nodes["a"].service_http
    say(f"""                  curl -H 'content-type: application/json' -d '{{"name":"mine","price":1}}' {a}/items""")
    say("  Ctrl-C stops it all.")


def stay(cluster):
    while True:
        for process in list(cluster.running):
            if not process.is_running():
                raise Failure("\n".join([f"{process.name} ended", *process.last_words()]))
        time.sleep(0.5)


def main():
    parser = argparse.ArgumentParser(prog="./dev demo", description="Shows Rowcast at work, with real parts.")
    parser.add_argument("--once", action="store_true", help="end after the story instead of leaving the cluster running")
    parser.add_argument("--release", action="store_true", help="show a release build: slower to build, faster to run")
    arguments = parser.parse_args()

    def interrupted(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    folder, cluster = ROOT / "target" / "demo", None
    try:
        with own_folder(folder):
            try:
                cluster = Cluster(folder, build(arguments.release), INVENTORY / "schema.toml")
                start = time.monotonic()
                Story(cluster).tell()
                heading(f"All of it happened, in {time.monotonic() - start:.1f} s.")
                if not arguments.once:
                    show_addresses(cluster)
                    stay(cluster)
            finally:
                # From here on nothing may keep the rest from being ended.
                for sign in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    signal.signal(sign, signal.SIG_IGN)
                if cluster:
                    cluster.stop()
    except Failure as failure:
        say()
        say(style("31", f"FAILED: {failure}"))
        say(f"The logs are in {folder}")
        return 1
    except KeyboardInterrupt:
        say()
        say("Stopped.")
        return 0 if cluster and not arguments.once else 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
