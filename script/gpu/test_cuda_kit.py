#!/usr/bin/env python3
"""Tests of what script/gpu/cuda-kit makes its archive with: leave-out.py and cut-model.py, on small trees and models.

    script/gpu/test_cuda_kit.py
"""

import importlib.util
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True


def module(name):
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), HERE / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


leave_out, cut_model = module("leave-out"), module("cut-model")

HEADERS = {
    "fattn-tile.cuh": "template <int DKQ, int DV>\nvoid ggml_cuda_flash_attn_ext_tile_case(ggml_backend_cuda_context & ctx, ggml_tensor * dst) {",
    "fattn-mma-f16.cuh": "template <int DKQ, int DV, int ncols1, int ncols2>\n"
                         "void ggml_cuda_flash_attn_ext_mma_f16_case(ggml_backend_cuda_context & ctx, ggml_tensor * dst) {",
    "mmq.cuh": "template <ggml_type type, ggml_prec prec_src1 = GGML_PREC_Q8>\n"
               "void mul_mat_q_case(ggml_backend_cuda_context & ctx, const mmq_args & args, cudaStream_t stream) {",
}
INSTANCES = {
    "fattn-tile-instance-dkq64-dv64": ["DECL_FATTN_TILE_CASE(64, 64);"],
    "fattn-mma-f16-instance-ncols1_8-ncols2_8": ["DECL_FATTN_MMA_F16_CASE(64, 64, 8, 8);", "DECL_FATTN_MMA_F16_CASE(80, 80, 8, 8);"],
    "fattn-mma-f16-instance-ncols1_1-ncols2_16": ["DECL_FATTN_MMA_F16_CASE(576, 512, 1, 16);"],
    "mmq-instance-q4_0": ["DECL_MMQ_CASE(GGML_TYPE_Q4_0);"],
    "mmq-instance-mxfp4": ["DECL_MMQ_CASE(GGML_TYPE_MXFP4);", "", "DECL_MMQ_CASE_W4A4(GGML_TYPE_MXFP4);"],
}


class LeaveOut(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tree = pathlib.Path(folder.name)
        self.base = self.tree / "ggml/src/ggml-cuda"
        (self.base / "template-instances").mkdir(parents=True)
        for name, text in HEADERS.items():
            (self.base / name).write_text(text)
        for name, lines in INSTANCES.items():
            self.file(name).write_text("\n".join(["// made", "", '#include "../x.cuh"', "", *lines]) + "\n")

    def file(self, name):
        return self.base / f"template-instances/{name}.cu"

    def run_it(self):
        return subprocess.run([sys.executable, HERE / "leave-out.py", self.tree], capture_output=True, text=True)

    def cases(self):
        return sorted(line for f in self.base.glob("template-instances/*.cu") for line in f.read_text().splitlines() if "DECL_" in line)

    def test_every_case_is_somewhere_once(self):
        before = self.cases()
        ran = self.run_it()
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(self.cases(), before)
        self.assertIn("fattn-mma: 1 cases stay, 2 go", ran.stdout)
        kept = self.file("fattn-mma-f16-instance-ncols1_8-ncols2_8").read_text()
        self.assertIn("(64, 64, 8, 8)", kept)
        self.assertNotIn("(80, 80, 8, 8)", kept)
        self.assertIn("(80, 80, 8, 8)", self.file("fattn-mma-left-out").read_text())
        self.assertFalse(self.file("mmq-instance-mxfp4").exists())
        self.assertTrue(self.file("mmq-instance-q4_0").exists())
        self.assertIn('#include "../turbo-left-out.h"', self.file("mmq-left-out").read_text())

    def refused(self, words):
        before = {f: f.read_text() for f in self.base.rglob("*") if f.is_file()}
        ran = self.run_it()
        self.assertEqual(ran.returncode, 1, ran.stdout)
        self.assertIn(words, ran.stderr)
        self.assertEqual({f: f.read_text() for f in self.base.rglob("*") if f.is_file()}, before)

    def test_what_is_not_as_expected_is_refused_and_stays(self):
        mmq = self.base / "mmq.cuh"
        mmq.write_text(mmq.read_text().replace("const mmq_args & args", "mmq_args args"))
        self.refused("mmq.cuh declares otherwise")
        mmq.write_text(HEADERS["mmq.cuh"])
        self.file("mmq-instance-q4_0").write_text("#ifdef X\nDECL_MMQ_CASE(GGML_TYPE_Q4_0);\n#endif\n")
        self.refused('"#ifdef X" is no case')
        self.file("mmq-instance-q4_0").unlink()
        self.refused("0 cases of mmq would stay")

    def test_a_second_time_is_refused(self):
        self.assertEqual(self.run_it().returncode, 0)
        self.refused("this has been done before")


def gguf(n_layers=3, extra=()):
    """A model with a vocabulary of two bytes, two tokens before them and three merges; tensors of a few bytes."""
    text = lambda t: struct.pack("<Q", len(t)) + t.encode()
    strings = lambda l: struct.pack("<IQ", 8, len(l)) + b"".join(map(text, l))
    keys = [
        ("general.architecture", 8, text("llama")),
        ("llama.block_count", 4, struct.pack("<I", n_layers)),
        ("llama.vocab_size", 4, struct.pack("<I", 7)),
        ("tokenizer.ggml.tokens", 9, strings(["<s>", "<e>", "a", "b", "ab", "abb", "abab"])),
        ("tokenizer.ggml.token_type", 9, struct.pack("<IQ7i", 5, 7, *range(7))),
        ("tokenizer.ggml.merges", 9, strings(["a b", "ab b", "ab ab"])),
        ("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", 1)),
        *extra,
    ]
    tensors = [("token_embd.weight", [2, 7], bytes(range(56)))]
    tensors += [(f"blk.{i}.x.weight", [3], bytes([100 + i] * 12)) for i in range(n_layers)]
    infos, data = b"", b""
    for name, dims, content in tensors:
        infos += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, 0, len(data))
        data += content + bytes(-len(content) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(text(name) + struct.pack("<I", kind) + value for name, kind, value in keys) + infos
    return head + bytes(-len(head) % 32) + data


class CutModel(unittest.TestCase):
    def test_all_of_it_is_the_same_file(self):
        whole = gguf()
        self.assertEqual(b"".join(cut_model.cut(whole, [0, 1, 2])), whole)

    def test_layers_and_tokens(self):
        parts = b"".join(cut_model.cut(gguf(), [0, 2], 5))
        head = cut_model.Reader(parts)
        head.take(8)
        n_tensors, n_keys = head.number("Q"), head.number("Q")
        keys = {}
        for _ in range(n_keys):
            name, kind = head.string().decode(), head.number("I")
            keys[name] = head.value(kind)
        self.assertEqual((keys["llama.block_count"], keys["llama.vocab_size"]), (2, 5))
        self.assertEqual(keys["tokenizer.ggml.tokens"][1], [b"<s>", b"<e>", b"a", b"b", b"ab"])
        self.assertEqual(keys["tokenizer.ggml.merges"][1], [b"a b"])
        self.assertEqual(len(keys["tokenizer.ggml.token_type"][1]), 5)
        found, offsets = {}, []
        infos = [(head.string().decode(), [head.number("Q") for _ in range(head.number("I"))], head.number("I"), head.number("Q"))
                 for _ in range(n_tensors)]
        begin = head.at + -head.at % 32
        for name, dims, _, offset in infos:
            n_bytes = 4 * dims[0] * (dims[1] if len(dims) > 1 else 1)
            offsets.append(offset)
            found[name] = parts[begin + offset:begin + offset + n_bytes]
        self.assertEqual(offsets, [0, 64, 96])
        self.assertEqual(found, {"token_embd.weight": bytes(range(40)), "blk.0.x.weight": bytes([100] * 12), "blk.1.x.weight": bytes([102] * 12)})

    def test_what_cannot_be_cut_is_refused(self):
        def refused(words, data, *arguments):
            with self.assertRaisesRegex(ValueError, words):
                cut_model.cut(data, *arguments)

        refused("not a GGUF", b"GGML" + gguf()[4:], [0])
        refused("ends within its head", gguf()[:90], [0])
        refused("layers 0 to 2, and no layer 3", gguf(), [0, 3])
        refused("--tokens 8 is not more than 4 and at most 7", gguf(), [0], 8)
        refused("--tokens 4 is not more than 4", gguf(), [0], 4)
        refused("eos_token_id is 6", gguf().replace(struct.pack("<II", 4, 1), struct.pack("<II", 4, 6)), [0], 5)
        refused("not byte pairs in the order", gguf().replace(b"ab b", b"b ab"), [0], 6)
        heads = ("llama.attention.head_count", 9, struct.pack("<IQI", 4, 1, 1))
        refused("llama.attention.head_count is a list", gguf(extra=[heads]), [0])


if __name__ == "__main__":
    unittest.main()
