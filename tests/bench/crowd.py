"""Many light agents in one process (the program `pollers`), and a server that is watched from outside, through /proc."""

import json
import os
import shutil
import socket
import subprocess
import time

from bed import Broken, fields, wait_for

# Descriptors that are not agents.
OTHERS = 500
TICK = os.sysconf("SC_CLK_TCK")
ROWS = []


def row(what, figure, note=""):
    """One line of the table; shown at once too, because all of it takes minutes."""
    ROWS.append((what, figure, note))
    print(f"  {what}: {figure} {note}", flush=True)


def now_ns():
    """The clock of the programs."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def build(options, names):
    """Builds what is measured, and answers the programs' paths."""
    folder = options.programs
    if not folder:
        profile = [] if options.smoke else ["--profile", "server"]
        words = [word for name in names for word in ("--bin", name)] + ["--example", "pollers"]
        subprocess.run(["cargo", "build", *profile, *words], check=True, stdin=subprocess.DEVNULL)
        folder = os.path.join(os.path.abspath(os.environ.get("CARGO_TARGET_DIR", "target")), "debug" if options.smoke else "server")
    programs = {name: os.path.join(folder, name) for name in names}
    programs["pollers"] = os.path.join(folder, "pollers" if options.programs else "examples/pollers")
    return programs


def pinned(processor):
    """The words that keep a program on one processor, where there are two."""
    processors = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(processors[processor])] if len(processors) > 1 and shutil.which("taskset") else []


class Process:
    """A server that is watched from outside."""

    def __init__(self, pid):
        self.pid = pid

    def cpu(self):
        """CPU seconds of all its threads, ended ones too."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as file:
            stat = file.read().rsplit(")", 1)[1].split()
        return (int(stat[11]) + int(stat[12])) / TICK

    def rss(self):
        return self.status("VmRSS")

    def status(self, name):
        return fields(f"/proc/{self.pid}/status")[name]

    def written(self):
        """Bytes that reached the block layer, and calls of write."""
        io = fields(f"/proc/{self.pid}/io")
        return io["write_bytes"], io["syscw"]


class Pollers:
    """The agents' process; see tests/bench/pollers/control.rs."""

    def __init__(self, site):
        path = site.path("pollers.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            self.child = site.start([*pinned(-1), site.programs["pollers"], path], "pollers")
            listener.settimeout(20)
            self.socket = listener.accept()[0]
        self.lines = self.socket.makefile("r", encoding="utf-8")

    def say(self, *words):
        self.socket.sendall((" ".join(map(str, words)) + "\n").encode())
        line = self.lines.readline()
        if not line:
            raise Broken("the agents' process ended; see pollers.log")
        said = json.loads(line)
        if "error" in said:
            raise Broken(f"pollers: {' '.join(map(str, words))}: {said['error']}")
        return said

    def stats(self, since=0):
        return self.say("stats", since)

    def wait(self, what, holds, every=0.05, limit=120):
        def look():
            stats = self.stats()
            return stats if holds(stats) else None

        return wait_for(what, look, every, limit)
