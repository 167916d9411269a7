"""A whole site on one machine: a release tree, a Director, and one agent that is watched from outside, through /proc."""

import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import time

AGENT = "vmetric-agent"
WAIT_S = 120
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armv7"}


class Broken(Exception):
    """The site does not do what it must; the measurement ends."""


def wait_for(what, look, every=0.02, limit=WAIT_S):
    """Looks until there is something to see."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        seen = look()
        if seen:
            return seen
        time.sleep(every)
    raise Broken(f"{what}: not within {limit} s")


def free_port():
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def fields(path):
    """`Name: 12 kB` lines of a /proc file, as a dictionary of numbers."""
    out = {}
    with open(path, encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            words = value.split()
            if words and words[0].isdigit():
                out[name] = int(words[0])
    return out


def cpu_of(command, env=None):
    """CPU seconds of a command and its children; it must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Agent:
    """The agent's process. It stays one process whatever it executes, so its id is the device's for the whole run."""

    def __init__(self, site, name):
        self.site, self.state = site, site.path(name)
        image = site.path(name + "-image")
        os.makedirs(image)
        self.program = os.path.join(image, AGENT)
        shutil.copy(site.programs[AGENT], self.program)
        shutil.copy(site.path("release/root.json"), image)
        token = site.ask("token", "create", "--uses", "1")["token"]
        pin = site.run("director", "pin", "--state", site.path("director")).strip()
        enroll = [self.program, "enroll", "--state", self.state, "--director", site.address, "--token", token, "--pin", pin]
        subprocess.run(enroll, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.child = site.start([self.program, "run", "--state", self.state], name, {"VMETRIC_RESPAWN": "1"})
        self.pid = self.child.pid
        self.settle()

    def proc(self, name):
        return f"/proc/{self.pid}/{name}"

    def status(self):
        return fields(self.proc("status"))

    def cpu(self):
        """CPU seconds of this process since its start, in whatever programs it was, and of its children that ended."""
        with open(self.proc("schedstat"), encoding="ascii") as file:
            own = int(file.read().split()[0]) / 1e9
        with open(self.proc("stat"), encoding="ascii", errors="replace") as file:
            stat = file.read().rsplit(")", 1)[1].split()
        return own + (int(stat[13]) + int(stat[14])) / os.sysconf("SC_CLK_TCK")

    def last_result(self):
        try:
            with open(os.path.join(self.state, "last-result.json"), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return {"generation": 0}

    def settle(self):
        """Waits until the agent is parked at its Director and has nothing to do."""
        wait_for("the agent parks", lambda: self.alive() and self.site.ask("status")["parked"] == 1, 0.1)
        time.sleep(0.2)

    def alive(self):
        if self.child.poll() is not None:
            raise Broken(f"the agent ended with {self.child.returncode}")
        return True

    def update(self, version, watch=lambda: None):
        """One update, to its end; `watch` is called as often as possible. Answers the result as the agent recorded it."""
        before = self.last_result()["generation"]
        self.site.assign(version)

        def ended():
            watch()
            self.alive()
            result = self.last_result()
            return result if result["generation"] > before else None

        result = wait_for(f"the update to {version}", ended, 0.002)
        if result["outcome"] != "updated":
            raise Broken(f"the update to {version}: {result['outcome']}: {result['detail']}")
        return result

    def peaks(self, version):
        """One update: the highest memory, in kB, of the old program, the launcher and the new one. Exec starts the kernel's
        count anew, so each program is looked at for as long as it runs."""
        seen = {}

        def look():
            try:
                program = os.readlink(self.proc("exe"))
                # Read before and after: an exec in between would give one program the other's figure.
                peak = self.status()["VmHWM"]
                if program == os.readlink(self.proc("exe")):
                    seen[program] = max(peak, seen.get(program, 0))
            except (FileNotFoundError, KeyError):
                pass

        look()
        old = os.readlink(self.proc("exe"))
        self.update(version, look)
        self.settle()
        look()
        return seen[old], seen.get(self.program, 0), seen[os.readlink(self.proc("exe"))]


class Site:
    """Folders, programs and processes. Use it with `with`: what it started ends with it."""

    def __init__(self, folder, programs):
        self.folder, self.programs, self.children, self.port = folder, programs, [], None
        self.env = dict(os.environ, VMETRIC_RELEASE_PASSPHRASE="of throw-away keys")
        self.arch = MACHINES.get(platform.machine()) or platform.machine()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, program, *args):
        """Runs the Director's or the release tool's program in the site's folder; answers what it said."""
        command = [self.programs["vmetric-" + program], *args]
        done = subprocess.run(command, cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Broken(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def ask(self, *words):
        """A question to the running Director."""
        return json.loads(self.run("director", *words, "--state", self.path("director"), "--json"))

    def assign(self, version):
        # Updates follow each other without a reboot between them, which a probation would wait for.
        self.ask("assign", "--all", "--version", version, "--end-probation")

    def start(self, command, log, env=None):
        """Starts a process that ends with the site; its words go to a log file."""
        with open(self.path(log + ".log"), "ab") as out:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=dict(self.env, **(env or {})))
        self.children.append(child)
        return child

    def padded(self, name, size=0, seed=0):
        """An agent that differs from every other one: the same program, and bytes after its end which nobody reads."""
        path = self.path(name)
        shutil.copy(self.programs[AGENT], path)
        with open(path, "ab") as file:
            file.write(b"padding %d" % seed)
            file.write(os.urandom(max(0, size - file.tell())))
        return path

    def publish(self, files):
        """Makes keys and a release tree with these files, a dictionary of versions."""
        keys = ["--repo", "release", "--keys", "keys"]
        few = [word for role in ("root", "targets") for word in (f"--{role}-keys", "1", f"--{role}-threshold", "1")]
        self.run("release", "init", *keys, *few)
        for version, path in files.items():
            place = ["--product", AGENT, "--version", version, "--os", "linux", "--arch", self.arch]
            # The artifact keeps its file name, which has to be the product's.
            folder = self.path("add-" + version)
            os.makedirs(folder)
            os.link(path, os.path.join(folder, AGENT))
            # One program under every version: 'add' would refuse it.
            self.run("release", "add", *keys, *place, "--unchecked", "padded copies", os.path.join(folder, AGENT))
        self.run("release", "sign", *keys)
        self.run("release", "publish", "--repo", "release", "--out", "public")

    def start_director(self, prefix=()):
        """Starts it, or starts it again at the same address; `prefix` may be taskset. Answers the process."""
        port = self.port = self.port or free_port()
        self.address = f"https://127.0.0.1:{port}"
        command = [*prefix, self.programs["vmetric-director"], "run", "--state", self.path("director"), "--listen", f"127.0.0.1:{port}"]
        command += ["--mirror", self.path("public"), "--root", self.path("release/root.json"), "--name", "127.0.0.1"]
        child = self.start(command, "director")

        def up():
            if child.poll() is not None:
                raise Broken(f"the Director ended with {child.returncode}: see {self.path('director.log')}")
            try:
                return self.ask("status")["releases"]
            except Broken:
                return None

        wait_for("the Director has mirrored the tree", up, 0.1)
        return child
