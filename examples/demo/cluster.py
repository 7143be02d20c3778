"""The demo's processes: nats-server, and nodes of a service and a sidecar each.

Everything lives in one folder. Whatever is started is written down there first, so that a demo that was itself killed
leaves nothing behind: the next one ends what it finds, if it is certain that it is the same process.
"""

import fcntl
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager

STOP_SECONDS = 10  # From the request to stop until the process is killed.


class Failure(Exception):
    """Something did not happen, or not in time."""


class Process:
    """One started program, the leader of a process group of its own."""

    def __init__(self, cluster, name, command, folder):
        self.cluster, self.name = cluster, name
        self.log = cluster.folder / f"{name.replace(' ', '-')}.log"
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env=cluster.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        cluster.running.append(self)
        cluster.write_down()

    @property
    def pid(self):
        return self.child.pid

    def is_running(self):
        return self.child.poll() is None

    def kill(self):
        """kill -9, without a warning."""
        self.end(signal.SIGKILL)

    def stop(self):
        """Asks it to stop, and kills it when it does not."""
        self.end(signal.SIGTERM)

    def end(self, sign):
        if self.is_running():
            self.child.send_signal(sign)
            if not self.has_ended_within(STOP_SECONDS):
                self.child.kill()
            # Its group goes with it. Its number cannot be another's before `wait`, which lets go of it.
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            self.child.wait()
        if self in self.cluster.running:
            self.cluster.running.remove(self)
            self.cluster.write_down()

    def has_ended_within(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                return True
            time.sleep(0.01)
        return False

    def last_words(self, lines=8):
        try:
            return self.log.read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            return []


class Node:
    """A node: its name, its folder, its database, its two addresses, its two processes."""

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        self.folder = cluster.folder / f"node-{name}"
        self.folder.mkdir()
        self.database = self.folder / "app.db"
        self.sidecar_http, self.service_http = cluster.free_address(), cluster.free_address()
        self.sidecar = self.service = None

    def service_command(self):
        return [
            self.cluster.programs["inventory"],
            *("--database", self.database, "--http", self.service_http),
            *("--nats", self.cluster.nats_url, "--node", self.name),
        ]

    def start_service(self):
        self.service = Process(self.cluster, f"service {self.name}", self.service_command(), self.folder)
        self.cluster.within(20, f"the service of {self.name} answers", lambda: self.answers(), self.service)

    def answers(self):
        return self.call("GET", "/healthz")[0] == 200

    def start_sidecar(self, first=False, starts_service=False):
        """Starts `rowcast run` and returns the moment."""
        command = [
            *(self.cluster.programs["rowcast"], "run", "--node", self.name),
            *("--database", self.database, "--schema", self.cluster.schema),
            *("--nats", self.cluster.nats_url, "--http", self.sidecar_http),
            *(["--first"] if first else []),
            *(["--exec", "--", *self.service_command()] if starts_service else []),
        ]
        moment = time.monotonic()
        self.sidecar = Process(self.cluster, f"sidecar {self.name}", command, self.folder)
        return moment

    def readiness(self):
        """What /readyz says: the state, and the reasons in words. None while nothing answers."""
        status, _, body = http_call("GET", self.sidecar_http, "/readyz")
        if status is None:
            return None, []
        reasons = [str(reason.get("text", reason)) for reason in body.get("reasons", [])]
        progress = body.get("progress")
        if progress:
            reasons.append(f"{progress['what']}: {progress['done']} of {progress['total'] or '?'}")
        return ("READY" if status == 200 else "NOT READY"), reasons

    def is_ready(self):
        return self.readiness()[0] == "READY"

    def until_ready(self, seconds, since):
        self.cluster.within(seconds, f"node {self.name} is READY", self.is_ready, self.sidecar, tell=self.readiness)
        return time.monotonic() - since

    def call(self, method, path, body=None):
        """One call of the service's HTTP API: status (None when nothing answers), headers, body."""
        return http_call(method, self.service_http, path, body)

    def write(self, method, path, body=None):
        """A write through the service's API, which must succeed. Returns the headers and the body."""
        status, headers, answer = self.call(method, path, body)
        if status not in (200, 201, 204):
            raise Failure(f"{method} {path} on node {self.name} was answered with {status}: {answer}")
        return headers, answer


class Cluster:
    """The folder, the programs, nats-server and the nodes."""

    def __init__(self, folder, programs, schema):
        self.folder, self.programs, self.schema = folder, programs, schema
        self.running, self.nodes = [], {}
        # Settings of the person's own shell would reach into the demo.
        own = ("ROWCAST_", "INVENTORY_")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        self.taken_ports = set()
        self.nats = None
        self.nats_address = self.free_address()
        self.nats_url = f"nats://{self.nats_address}"

    def free_address(self):
        # Below the ports that outgoing connections take, so that an address stays free while its server is down.
        for port in random.sample(range(20_000, 30_000), 1_000):
            if port not in self.taken_ports:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) != 0:
                        self.taken_ports.add(port)
                        return f"127.0.0.1:{port}"
        raise Failure("no free port between 20000 and 30000")

    def start_nats(self):
        host, port = self.nats_address.split(":")
        self.nats = Process(self, "nats-server", [self.programs["nats-server"], "-a", host, "-p", port], self.folder)
        self.within(10, "nats-server answers", self.nats_answers, self.nats)

    def nats_answers(self):
        host, port = self.nats_address.split(":")
        try:
            with socket.create_connection((host, int(port)), timeout=1) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False

    def add_node(self, name):
        self.nodes[name] = Node(self, name)
        return self.nodes[name]

    def within(self, seconds, what, probe, process=None, tell=None):
        """Waits until `probe` says yes, and fails loudly when it does not in time or `process` ends. Returns what the
        probe said."""
        end = time.monotonic() + seconds
        while True:
            result = probe()
            if result:
                return result
            problem = None
            if process and not process.is_running():
                problem = f"{process.name} ended with exit code {process.child.returncode}"
            elif time.monotonic() > end:
                problem = f"it did not happen within {seconds} s"
            if problem:
                words = [f"{what}: {problem}"]
                words += [f"it says: {tell()}"] if tell else []
                words += [f"    {line}" for line in process.last_words()] if process else []
                raise Failure("\n".join(words))
            time.sleep(0.001)

    def write_down(self):
        lines = [json.dumps({"pid": process.pid, "mark": mark_of(process.pid)}) for process in self.running]
        replacement = self.folder / "running.new"
        replacement.write_text("".join(line + "\n" for line in lines))
        replacement.replace(self.folder / "running")

    def stop(self):
        """Ends everything that was started, the services before their sidecars, nats-server last."""
        rank = {"service": 0, "sidecar": 1}
        for process in sorted(self.running, key=lambda process: rank.get(process.name.split()[0], 2)):
            process.stop()


def http_call(method, address, path, body=None):
    """Status, headers, body (from JSON). The status is None when nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        return call_on(connection, method, path, body)
    except (OSError, http.client.HTTPException):
        return None, {}, {}
    finally:
        connection.close()


def call_on(connection, method, path, body=None):
    """The same on a connection that stays open."""
    connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode()
    is_json = "json" in (response.getheader("Content-Type") or "")
    return response.status, response.headers, json.loads(text) if is_json and text else text


@contextmanager
def own_folder(folder):
    """An empty folder for this demo alone. What an earlier demo left running is ended first."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f"{folder.name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure("another demo runs in this checkout; stop it first (Ctrl-C in its terminal)") from None
        end_leftovers(folder / "running")
        shutil.rmtree(folder)
        folder.mkdir()
        yield


def end_leftovers(running):
    try:
        left = [json.loads(line) for line in running.read_text().splitlines()]
    except (OSError, ValueError):
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        # Only what is certainly the process that was written down: its start time and program are the same.
        left = [one for one in left if one["mark"] and mark_of(one["pid"]) == one["mark"]]
        for one in left:
            os.kill(one["pid"], sign)
        end = time.monotonic() + STOP_SECONDS
        while time.monotonic() < end and any(mark_of(one["pid"]) == one["mark"] for one in left):
            time.sleep(0.05)


def mark_of(pid):
    """What tells a process from a later one under the same number: when it was started, and as what."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        state, *fields = stat.rpartition(")")[2].split()
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if state == "Z" else f"{boot} {fields[18]}"
    except FileNotFoundError:
        if pathlib.Path("/proc/self").exists():
            return None
    except (OSError, IndexError):
        return None
    seen = subprocess.run(["ps", "-o", "lstart=,comm=", "-p", str(pid)], capture_output=True, text=True)
    return seen.stdout.strip() or None
