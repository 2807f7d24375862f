#!/usr/bin/env python3
"""Writes a GGUF with some of a model's layers and tokens: a trained model's weights, in a file that fits into an archive.

    cut-model.py MODEL.gguf OUT.gguf --layers 0-6,20-29 [--tokens 8192]

Layers are numbered anew in the order given. Of a vocabulary of byte pairs in the order of their merges the first tokens are a
vocabulary, too, which takes more tokens for a text. What such a model says makes less sense, or none, but it has a trained
model's tokens, activations and logits, by which two devices can be compared. Needs Python 3 alone.
"""

import argparse
import os
import pathlib
import re
import struct
import sys

UINT32, STRING, ARRAY = 4, 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of values of the other types
# Values and bytes of a block: f32, f16, q4_0, q4_1, q8_0, q6_K.
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 14: (256, 210)}
TOKENS, MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"


class Reader:
    """Reads a GGUF's head; `at` is where it has got to."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if self.at + size > len(self.data):
            raise ValueError("it ends within its head")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, layout):
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))[0]

    def string(self):
        return self.take(self.number("Q"))

    def value(self, kind):
        """An integer or the bytes of another number; a string's bytes; of an array, (type, list)."""
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            element, count = self.number("I"), self.number("Q")
            return element, [self.value(element) for _ in range(count)]
        if kind not in SIZES:
            raise ValueError(f"it has a value of type {kind}, which is not known here")
        return self.number("I") if kind == UINT32 else self.take(SIZES[kind])


def packed(kind, value):
    if kind == STRING:
        return struct.pack("<Q", len(value)) + value
    if kind == ARRAY:
        element, values = value
        return struct.pack("<IQ", element, len(values)) + b"".join(packed(element, v) for v in values)
    return struct.pack("<I", value) if kind == UINT32 else value


def cut_keys(keys, layers, n_tokens):
    """Changes the keys, {name: (type, value)}. Raises ValueError where that cannot be done."""
    architecture = keys.get("general.architecture", (STRING, b""))[1].decode()
    count = f"{architecture}.block_count"
    if keys.get(count, (None,))[0] != UINT32:
        raise ValueError(f"it does not say how many layers it has ({count})")
    wrong = [layer for layer in layers if layer >= keys[count][1]]
    if wrong:
        raise ValueError(f"it has layers 0 to {keys[count][1] - 1}, and no layer {wrong[0]}")
    lists = [name for name, (kind, value) in keys.items() if kind == ARRAY and name.startswith(f"{architecture}.")]
    if lists:
        raise ValueError(f"{lists[0]} is a list, which is not cut here")
    keys[count] = UINT32, len(layers)
    if n_tokens is None:
        return
    tokens, merges = (keys.get(name, (ARRAY, (STRING, [])))[1][1] for name in (TOKENS, MERGES))
    base = len(tokens) - len(merges)
    if not merges or any(tokens[base + i] != m.replace(b" ", b"", 1) for i, m in enumerate(merges)):
        raise ValueError("its tokens are not byte pairs in the order of their merges, so that they cannot be cut")
    if not base < n_tokens <= len(tokens):
        raise ValueError(f"--tokens {n_tokens} is not more than {base} and at most {len(tokens)}")
    for name, (kind, value) in list(keys.items()):
        if kind == ARRAY and len(value[1]) == len(tokens):
            keys[name] = kind, (value[0], value[1][:n_tokens])
        elif kind == UINT32 and name.endswith("_token_id") and value >= n_tokens:
            raise ValueError(f"{name} is {value}, which --tokens {n_tokens} leaves out")
    keys[MERGES] = ARRAY, (STRING, merges[:n_tokens - base])
    if f"{architecture}.vocab_size" in keys:
        keys[f"{architecture}.vocab_size"] = UINT32, n_tokens


def cut(data, layers, n_tokens=None):
    """The new file's parts. Raises ValueError where `data` is no GGUF of this kind, or has no such layers or tokens."""
    head = Reader(data)
    if head.take(4) != b"GGUF" or head.number("I") != 3:
        raise ValueError("it is not a GGUF of version 3")
    n_tensors, n_keys = head.number("Q"), head.number("Q")
    keys = {}
    for _ in range(n_keys):
        name, kind = head.string().decode(), head.number("I")
        keys[name] = kind, head.value(kind)
    alignment = keys.get("general.alignment", (UINT32, 32))[1]
    cut_keys(keys, layers, n_tokens)

    tensors = []
    for _ in range(n_tensors):
        name, n_dims = head.string().decode(), head.number("I")
        dims = [head.number("Q") for _ in range(n_dims)]
        tensors.append((name, dims, head.number("I"), head.number("Q")))
    padding = lambda size: -size % alignment
    begin = head.at + padding(head.at)
    ends = sorted(offset for *_, offset in tensors)[1:] + [len(data) - begin]
    end_of = dict(zip(sorted(offset for *_, offset in tensors), ends))

    infos, contents, at = [], [], 0
    for name, dims, kind, offset in tensors:
        content = data[begin + offset:begin + end_of[offset]]
        if n_tokens is not None and name in ("token_embd.weight", "output.weight"):
            if kind not in BLOCKS:
                raise ValueError(f"{name} is of type {kind}, of which the size of a row is not known here")
            n_values, n_bytes = BLOCKS[kind]
            content = content[:dims[0] // n_values * n_bytes * n_tokens]
            dims = [dims[0], n_tokens]
        block = re.match(r"blk\.(\d+)\.(.*)", name)
        if block and int(block[1]) not in layers:
            continue
        if block:
            name = f"blk.{layers.index(int(block[1]))}.{block[2]}"
        infos.append(packed(STRING, name.encode()) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, at))
        contents += [content, bytes(padding(len(content)))]
        at += len(content) + padding(len(content))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys))
    for name, (kind, value) in keys.items():
        head += packed(STRING, name.encode()) + struct.pack("<I", kind) + packed(kind, value)
    head += b"".join(infos)
    return [head, bytes(padding(len(head))), *contents]


def layer_list(text):
    """[0, 1, 2, 7] of "0-2,7"."""
    layers = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not found:
            raise argparse.ArgumentTypeError(f'"{text}" is not a list of layers such as 0-6,20-29')
        layers += range(int(found[1]), int(found[2] or found[1]) + 1)
    if len(set(layers)) != len(layers) or not layers:
        raise argparse.ArgumentTypeError(f'"{text}" names no layer, or one twice')
    return layers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--layers", type=layer_list, required=True)
    parser.add_argument("--tokens", type=int)
    args = parser.parse_args()
    part = args.out.with_name(args.out.name + ".part")
    try:
        parts = cut(args.model.read_bytes(), args.layers, args.tokens)
        with open(part, "wb") as out:
            out.writelines(parts)
        os.replace(part, args.out)
    except ValueError as e:
        sys.exit(f"error: {args.model}: {e}")
    except OSError as e:
        sys.exit(f"error: {e.filename}: {e.strerror}")
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
