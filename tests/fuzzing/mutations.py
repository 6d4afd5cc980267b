"""Mutations of files: of bytes, of tokens of text, and of values in JSON."""

from __future__ import annotations

import json
import random
import re
from contextlib import suppress
from typing import Any

NUMBERS = ("nan", "inf", "-1", "0", "1e400", "1e30", "9" * 30, "9" * 5000, "0.5", "word", "", "\x1b[2J", "-")
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 0.5, 1e30, 1e308, float("inf"), float("nan"), 10**30, 10**400, 2**31),
    *("word", "", "../../x", "/etc/passwd", "a\n\x1b[31mb", "x" * 10_000, "\ud800"),
    *([], {}, [1], {"a": 1}, [[]], ["word"]),
)
BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 9)]
    + ["seed: *a8"]
)


def mutate(content: bytes, name: str, rng: random.Random) -> bytes:
    """Return a mutant of the content of a file, by the kind of file that its name says."""
    if name.endswith(".json") and rng.random() < 0.8:
        with suppress(ValueError, RecursionError):  # it is broken already
            return _mutate_json(content, rng)
    if name.endswith((".yaml", ".txt")) and rng.random() < 0.8:
        return _mutate_text(content, rng)
    if name.endswith(".ply") and rng.random() < 0.5:
        header, end, rows = content.partition(b"end_header")
        return _mutate_text(header, rng) + end + rows
    return _mutate_bytes(content, rng)


def _mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(max(len(content), 1))
    end = min(len(content), start + rng.choice((1, 8, 64, 1024)))
    kind = rng.randrange(7)
    if kind == 0:
        return content[:start]
    if kind == 1:
        return content[:start] + bytes(rng.randrange(256) for _ in range(end - start)) + content[end:]
    if kind == 2:
        return content[:start] + bytes(end - start) + content[end:]
    if kind == 3:
        return content[:start] + content[end:]
    if kind == 4:
        return content[:end] + content[start:]
    if kind == 5:
        return content[:start] + b"\xff" * (end - start) + content[end:]
    return b"" if rng.random() < 0.2 else content[:start] + rng.randbytes(8) + content[start:]


def _mutate_text(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    tokens = list(re.finditer(r"[^\s,:\[\]{}]+", text))
    kind = rng.randrange(6)
    if kind < 3 and tokens:
        token = rng.choice(tokens)
        text = text[: token.start()] + rng.choice(NUMBERS) + text[token.end() :]
    elif kind == 3:
        lines = text.splitlines(keepends=True)
        del lines[rng.randrange(max(len(lines), 1)) :][:1]
        rng.shuffle(lines)
        text = "".join(lines)
    elif kind == 4:
        text += "\n" + rng.choice((BOMB, "a: " + "[" * 5000, "? " * 3000, "<<: *x", "a: &a [*a]", "\0"))
    elif tokens:
        token = rng.choice(tokens)
        text = text[: token.end()] + rng.choice((" 1", ":", "[", "\n", "\t", "'", "{")) + text[token.end() :]
    return text.encode("utf-8", "replace")


def _mutate_json(content: bytes, rng: random.Random) -> bytes:
    tree = json.loads(content)
    parent, key = _choose_place(tree, rng)
    if parent is None:
        tree = rng.choice(VALUES)
    else:
        kind = rng.randrange(8)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, list):
            parent[key:key] = [parent[key]] * rng.choice((1, 3, 1000))
        elif kind == 2:
            parent[key] = "DEEP"
        elif kind == 3 and isinstance(parent, dict):
            parent[rng.choice(("word", "", "\x1b", "x" * 1000))] = parent.pop(key)
        elif kind == 4 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] *= rng.choice((-1, 0, 1e-9, 1e9, 1e300, 3))
        else:
            parent[key] = rng.choice(VALUES)
    deep = "[" * 5000 + "]" * 5000
    return json.dumps(tree).replace('"DEEP"', deep).encode("utf-8", "surrogatepass")


def _choose_place(tree: Any, rng: random.Random) -> tuple[Any, Any]:
    """Choose a value anywhere in a tree, by its parent and key; None as the parent for the tree itself."""
    places: list[tuple[Any, Any]] = [(None, None)]
    todo = [tree]
    while todo:
        item = todo.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        places += [(item, key) for key in keys]
        todo += [item[key] for key in keys]
    by_depth = places if rng.random() < 0.5 else places[: max(2, len(places) // 10)]
    return rng.choice(by_depth)
