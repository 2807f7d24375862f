#!/usr/bin/env python3
"""Writes a GGUF that has the shape of a model and random weights: for measurements of speed, where values do not matter.

    make-bench-gguf.py FILE [--heads 32] [--kv-heads 8] [--head-dim 128] [--layers 32] [--ff 14336] [--vocab 32000]

Llama's architecture, weights in q4_0, no tokenizer. Needs Python 3 and nothing else. The defaults are an 8B model's shape.
"""

import argparse
import os
import pathlib
import random
import struct
import sys

F32, Q4_0 = 0, 2
UINT32, FLOAT32, STRING = 4, 6, 8
ALIGN = 32


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def key(name, kind, value):
    packed = string(value) if kind == STRING else struct.pack("<I" if kind == UINT32 else "<f", value)
    return string(name) + struct.pack("<I", kind) + packed


def row_bytes(kind, columns):
    return columns * 4 if kind == F32 else columns // 32 * 18


def blocks(count):
    """q4_0: a scale and 32 random nibbles a block. The standard deviation is 0.02, as a trained model's about is."""
    scale = struct.pack("<e", 0.02 / 4.6)
    noise = random.Random(0).randbytes(16 * count)
    return b"".join(scale + noise[16 * i:16 * i + 16] for i in range(count))


def write(out, args):
    embd, kv = args.heads * args.head_dim, args.kv_heads * args.head_dim
    keys = [
        key("general.architecture", STRING, "llama"),
        key("general.name", STRING, f"random, {args.heads} heads, {args.kv_heads} K/V heads"),
        key("general.quantization_version", UINT32, 2),
        key("general.file_type", UINT32, 2),
        key("tokenizer.ggml.model", STRING, "no_vocab"),
        key("llama.vocab_size", UINT32, args.vocab),
        key("llama.context_length", UINT32, args.context),
        key("llama.embedding_length", UINT32, embd),
        key("llama.block_count", UINT32, args.layers),
        key("llama.feed_forward_length", UINT32, args.ff),
        key("llama.attention.head_count", UINT32, args.heads),
        key("llama.attention.head_count_kv", UINT32, args.kv_heads),
        key("llama.attention.key_length", UINT32, args.head_dim),
        key("llama.attention.value_length", UINT32, args.head_dim),
        key("llama.rope.dimension_count", UINT32, args.head_dim),
        key("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
        key("llama.rope.freq_base", FLOAT32, 500000.0),
    ]
    # Name, type, columns, rows (0: a vector).
    tensors = [("token_embd.weight", Q4_0, embd, args.vocab)]
    for i in range(args.layers):
        tensors += [
            (f"blk.{i}.attn_norm.weight", F32, embd, 0),
            (f"blk.{i}.attn_q.weight", Q4_0, embd, embd),
            (f"blk.{i}.attn_k.weight", Q4_0, embd, kv),
            (f"blk.{i}.attn_v.weight", Q4_0, embd, kv),
            (f"blk.{i}.attn_output.weight", Q4_0, embd, embd),
            (f"blk.{i}.ffn_norm.weight", F32, embd, 0),
            (f"blk.{i}.ffn_gate.weight", Q4_0, embd, args.ff),
            (f"blk.{i}.ffn_up.weight", Q4_0, embd, args.ff),
            (f"blk.{i}.ffn_down.weight", Q4_0, args.ff, embd),
        ]
    tensors += [("output_norm.weight", F32, embd, 0), ("output.weight", Q4_0, embd, args.vocab)]

    infos, offset = [], 0
    for name, kind, columns, rows in tensors:
        dims = [columns, rows] if rows else [columns]
        infos.append(string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset))
        offset += -(-row_bytes(kind, columns) * max(rows, 1) // ALIGN) * ALIGN
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + b"".join(infos)
    out.write(head + bytes(-len(head) % ALIGN))

    noise = blocks(1 << 16)  # over and over
    for _, kind, columns, rows in tensors:
        size = row_bytes(kind, columns) * max(rows, 1)
        data = noise if kind == Q4_0 else struct.pack("<f", 1.0) * columns
        left = size
        while left:
            left -= out.write(data[:left])
        out.write(bytes(-size % ALIGN))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    for name, default in (("heads", 32), ("kv-heads", 8), ("head-dim", 128), ("layers", 32), ("ff", 14336),
                          ("vocab", 32000), ("context", 262144)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    if min(vars(args)[n] for n in ("heads", "kv_heads", "head_dim", "layers", "ff", "vocab", "context")) < 1:
        parser.error("sizes are at least 1")
    if args.heads % args.kv_heads or args.heads * args.head_dim % 32 or args.ff % 32:
        parser.error("--heads is a multiple of --kv-heads; heads * head-dim and ff are multiples of 32")
    part = args.file.with_name(args.file.name + ".part")
    try:
        with open(part, "wb") as out:
            write(out, args)
        os.replace(part, args.file)
    except OSError as e:
        sys.exit(f"error: {part}: {e.strerror}")
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
