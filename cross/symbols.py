"""Sizes from an ELF file: of its sections, and of its functions and tables by the crate they come from."""

import collections
import re
import struct

# Static functions of C files carry no prefix; these are ring's, every other C file is the C library's.
RING_FILES = re.compile(r"^(aes_nohw|cpu_intel|crypto|curve25519\w*|ecp_nistz\w*|gfp_p\d+|limbs|mem|montgomery\w*|p256\S*|poly1305\w*)\.c$")
STANDARD = ("core", "alloc", "std")
ALLOCATED = 2
NOBITS, SYMTAB = 8, 2
OBJECT, FUNCTION, FILE = 1, 2, 4


def identifiers(mangled):
    """The words of a v0-mangled Rust name, in order: enough to read it, without generic arguments told apart."""
    words, at = [], 2
    while at < len(mangled):
        token = re.match(r"[sB][0-9a-zA-Z]*_|0|(\d+)_?|.", mangled[at:])
        at += token.end()
        if token.group(1):
            words.append(mangled[at : at + int(token.group(1))])
            at += len(words[-1])
    return [word for word in words if word.isidentifier()]


def crates(mangled):
    """The crates that a v0-mangled name speaks of, in order: a crate's root is C, a disambiguator, a length, the name."""
    found = []
    for match in re.finditer(r"C(?:s[0-9a-zA-Z]*_)?(\d+)_?(?=[A-Za-z_])", mangled):
        found.append(mangled[match.end() : match.end() + int(match.group(1))])
    return found


class Elf:
    """Of either size, little-endian."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        if self.data[:4] != b"\x7fELF":
            raise ValueError(f"{path} is no ELF file")
        self.wide = self.data[4] == 2
        self.headers = list(self.section_headers())
        names = self.headers[struct.unpack_from("<H", self.data, 62 if self.wide else 50)[0]]
        self.sections = {self.text(names, s["name"]): s["size"] for s in self.headers if s["flags"] & ALLOCATED and s["type"] != NOBITS}

    def section_headers(self):
        at = struct.unpack_from("<Q" if self.wide else "<I", self.data, 40 if self.wide else 32)[0]
        size, count = struct.unpack_from("<HH", self.data, 58 if self.wide else 46)
        for i in range(count):
            form = "<IIQQQQII" if self.wide else "<IIIIIIII"
            name, kind, flags, _, offset, length, link, _ = struct.unpack_from(form, self.data, at + i * size)
            yield {"name": name, "type": kind, "flags": flags, "offset": offset, "size": length, "link": link}

    def text(self, table, at):
        start = table["offset"] + at
        return self.data[start : self.data.index(b"\0", start)].decode("ascii", "replace")

    def symbols(self):
        """(size, name, C file) of every function and table in the program; one name where several share an address."""
        seen = {}
        for table in (s for s in self.headers if s["type"] == SYMTAB):
            strings, source = self.headers[table["link"]], ""
            step = 24 if self.wide else 16
            for at in range(table["offset"], table["offset"] + table["size"], step):
                if self.wide:
                    name, info, _, section, address, size = struct.unpack_from("<IBBHQQ", self.data, at)
                else:
                    name, address, size, info, _, section = struct.unpack_from("<IIIBBH", self.data, at)
                if info & 15 == FILE:
                    source = self.text(strings, name)
                elif info & 15 in (OBJECT, FUNCTION) and size and 0 < section < len(self.headers):
                    if self.headers[section]["type"] != NOBITS:
                        seen.setdefault(address, (size, self.text(strings, name), source if info >> 4 == 0 else ""))
        return list(seen.values())

    def by_crate(self):
        """Bytes per crate. A generic function counts for the first crate in its name that is not the standard library."""
        total = collections.Counter()
        for size, name, source in self.symbols():
            total[crate_of(name, source)] += size
        return total

    def largest(self, count):
        return [(size, readable(name)) for size, name, _ in sorted(self.symbols(), reverse=True)[:count]]


def crate_of(name, source):
    if name.startswith("_R"):
        found = crates(name)
        own = [crate for crate in found if crate not in STANDARD]
        return (own or found or ["?"])[0]
    if name.startswith("OUTLINED_FUNCTION"):
        return "outlined"
    ring = name.startswith("ring_core") or RING_FILES.match(source) or "aes" in name or "ghash" in name
    return "ring (C, assembly)" if ring else "C library"


def readable(name):
    return "::".join(identifiers(name))[:110] if name.startswith("_R") else name
