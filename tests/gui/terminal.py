#!/usr/bin/env python3
"""Runs a command on a terminal of its own, and ends it as a person does: by Ctrl-C.

usage: tests/gui/terminal.py LOG COMMAND...

LOG gets what the command prints. SIGTERM or SIGINT to this program types Ctrl-C on that terminal; then the command has to
end within 30 s, with no process of it left and its work folder (vmetric-demo-PID) gone.

exit codes  0 it ended by Ctrl-C and left nothing, 1 something is left (said on stderr), 2 it ended by itself or wrong usage
"""
import os
import pty
import select
import signal
import sys
import tempfile
import time

PATIENCE_S = 30


def descendants(of):
    """Every living process that this one started, and what those started, by the table of processes."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            parents[int(name)] = int(fields[1])
    found, more = {of}, True
    while more:
        fresh = {pid for pid, parent in parents.items() if parent in found} - found
        found |= fresh
        more = bool(fresh)
    return found - {of}


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def main():
    if len(sys.argv) < 3 or sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip(), file=sys.stdout if "--help" in sys.argv or "-h" in sys.argv else sys.stderr)
        return 0 if len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help") else 2
    log = open(sys.argv[1], "wb", buffering=0)
    asked = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.append(True))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(sys.argv[2], sys.argv[2:])
    started, until = set(), None
    while True:
        if asked and until is None:
            started = descendants(pid) | {pid}
            os.write(terminal, b"\x03")
            until = time.monotonic() + PATIENCE_S
        ready, _, _ = select.select([terminal], [], [], 0.2)
        if ready:
            try:
                log.write(os.read(terminal, 65536))
            except OSError:
                pass
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if until and time.monotonic() > until:
            print(f"terminal.py: Ctrl-C did not end it within {PATIENCE_S} s", file=sys.stderr)
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            return 1
    if not asked:
        print(f"terminal.py: it ended by itself ({os.waitstatus_to_exitcode(status)}), see {sys.argv[1]}", file=sys.stderr)
        return 2
    work = os.path.join(tempfile.gettempdir(), f"vmetric-demo-{pid}")
    # Killed processes need a moment until they are gone.
    while time.monotonic() < until and any(map(alive, started)):
        time.sleep(0.05)
    left = [str(p) for p in started if alive(p)]
    if left or os.path.exists(work):
        what = [f"processes {', '.join(left)}"] * bool(left) + [work] * os.path.exists(work)
        print(f"terminal.py: after Ctrl-C there is left: {' and '.join(what)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
