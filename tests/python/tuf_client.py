"""Downloads every target of a published tree with the reference TUF client and compares the bytes.

    tuf_client.py TREE ROOT

TREE is the folder that `vmetric-release publish` wrote, ROOT the trusted root. The tree is served over HTTP on the
loopback interface. Every target that the metadata names must be found, downloaded and equal to the file in the tree;
a name that no role lists must not be found. Prints one line per target; exit code 0 only when all of it holds.
"""

import functools
import http.server
import json
import pathlib
import sys
import tempfile
import threading

import tuf
from tuf.ngclient import Updater


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static file server without a log line per request."""

    def log_message(self, *args):
        pass


def serve(folder):
    """Serves a folder on a free port; answers the server and its address."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


def listed_targets(tree):
    """Paths that the newest version of any role lists, read without the client: what it has to find."""
    newest = {}
    for file in (tree / "metadata").glob("*.json"):
        signed = json.loads(file.read_bytes())["signed"]
        if signed["_type"] == "targets":
            role = file.name.split(".", 1)[1]
            if signed["version"] > newest.get(role, {"version": 0})["version"]:
                newest[role] = signed
    return {path: entry for signed in newest.values() for path, entry in signed["targets"].items()}


def file_of(tree, path, entry):
    """The consistent-snapshot file of a target path."""
    folder, name = path.rsplit("/", 1)
    return tree / "targets" / folder / f"{entry['hashes']['sha256']}.{name}"


def updater(address, root, work):
    """A client whose only trust is the given root."""
    for name in ("metadata", "targets"):
        (work / name).mkdir(exist_ok=True)
    return Updater(
        metadata_dir=str(work / "metadata"),
        metadata_base_url=f"{address}/metadata/",
        target_dir=str(work / "targets"),
        target_base_url=f"{address}/targets/",
        bootstrap=root.read_bytes(),
    )


def main(tree, root):
    """Refreshes, downloads everything, compares."""
    server, address = serve(tree)
    wanted = listed_targets(tree)
    if not wanted:
        sys.exit("the tree lists no target")
    with tempfile.TemporaryDirectory() as work:
        client = updater(address, root, pathlib.Path(work))
        client.refresh()
        for path, entry in sorted(wanted.items()):
            info = client.get_targetinfo(path)
            if info is None:
                sys.exit(f"{path}: the client does not find it")
            got = pathlib.Path(client.download_target(info, str(pathlib.Path(work) / "download"))).read_bytes()
            if got != file_of(tree, path, entry).read_bytes():
                sys.exit(f"{path}: other bytes")
            print("downloaded", path, len(got))
        if client.get_targetinfo("vmetric-agent/0.0.0/linux-amd64/never-added") is not None:
            sys.exit("the client found a file that nobody added")
    server.shutdown()
    print("ok", len(wanted), "targets with tuf", tuf.__version__)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
