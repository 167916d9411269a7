#!/usr/bin/env python3
"""Parses a PowerShell text by its grammar, without PowerShell: where that cannot be had, at least nothing is misquoted.

usage: powershell.py < TEXT        (needs tree-sitter and tree-sitter-powershell from PyPI: tests/python/setup)

Prints the text's commands and functions, one a line: what would be called. Every place that does not parse is said on stderr.

exit codes  0 it parses, 1 it does not, 2 wrong usage
"""
import sys


def main():
    if len(sys.argv) > 1:
        print(__doc__.strip(), file=sys.stdout if sys.argv[1] in ("-h", "--help") else sys.stderr)
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    import tree_sitter
    import tree_sitter_powershell

    text = sys.stdin.buffer.read()
    tree = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language())).parse(text)
    wrong, called, todo = [], set(), [tree.root_node]
    while todo:
        node = todo.pop()
        if node.is_error or node.is_missing:
            line, column = node.start_point
            wrong.append(f"line {line + 1}, column {column + 1}: {'missing ' + node.type if node.is_missing else 'unexpected'}: "
                         f"{text[node.start_byte:node.end_byte][:60].decode(errors='replace')}")
        if node.type in ("command_name", "function_name"):
            called.add(text[node.start_byte:node.end_byte].decode(errors="replace"))
        todo.extend(node.children)
    print("\n".join(sorted(called)))
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
