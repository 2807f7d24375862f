#!/usr/bin/env python3
"""Tests of cuda-report, with programs that only pretend: seconds, and no time is asserted.

    script/gpu/test_cuda_report.py
"""

import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from cuda_report import answer, operators, steps, writing  # noqa: E402
from cuda_report.budget import Budget  # noqa: E402

# What stands for all four programs: prints what they would, and notes that it ran. FAKE_FAIL=WORDS fails, and FAKE_HANG=WORDS
# hangs, where the command line has these words.
FAKE = """\
    #!/bin/sh
    echo "$(basename "$0") $*" >>"$FAKE_LOG"
    if [ -n "$FAKE_FAIL" ]; then
        case "$(basename "$0") $*" in *"$FAKE_FAIL"*) echo "halfway"; echo "it broke" >&2; exit 3 ;; esac
    fi
    if [ -n "$FAKE_HANG" ]; then
        case "$(basename "$0") $*" in *"$FAKE_HANG"*) echo "halfway"; echo $$ >"$FAKE_LOG.hangs"; sleep 3600 ;; esac
    fi
    case "$(basename "$0") $*" in
    *"ops perf"*SET_ROWS*)
        echo '  SET_ROWS(type_src=f32,type_dst=turbo4,type_idx=i64,ne=[1024,4096,1,1],nr23=[1,1],r=512,v=0):   100 runs -   50.00 us/run - 1 kB/run - 1 GB/s'
        echo '  SET_ROWS(type_src=f32,type_dst=turbo2,type_idx=i64,ne=[1024,4096,1,1],nr23=[1,1],r=512,v=0):   100 runs -   30.00 us/run - 1 kB/run - 1 GB/s' ;;
    *"ops perf"*) echo '  FLASH_ATTN_EXT(hsk=128,hsv=128,nh=8,kv=4096,nb=1,type_K=turbo4,type_V=turbo4): 100 runs - 9.00 us/run - 1 GFLOP/run - 1 TFLOPS' ;;
    *"ops test"*)
        while [ "$1" != -o ]; do shift; done
        printf '  %s(type=turbo4): \\033[1;32mOK\\033[0m\\n' "$2" ;;
    llama-bench*)
        echo '{"n_prompt": 32, "n_gen": 0, "avg_ts": 1000.0, "stddev_ts": 1.0}'
        echo '{"n_prompt": 0, "n_gen": 8, "avg_ts": 50.0, "stddev_ts": 0.5}' ;;
    *"--kl-divergence") # the device's: in smaller batches
        kld=0.010000
        case $* in *"-ub 48"*) kld=${FAKE_KLD:-0.011000} ;; esac
        case $* in *"-ctk f16"*) kld=${FAKE_F16:-0.001000} ;; esac
        printf 'Mean    KLD:   %s ±   0.000001\\nSame top p: 99.500 ± 0.1 %%%%\\n' "$kld" ;;
    llama-completion*) echo "The capital of France is Paris." ;;
    esac
"""


def is_gone(number):
    """Whether there is no such process; one that nobody has reaped is gone as well."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(number)], capture_output=True, text=True).stdout.strip()
    return not state or state.startswith("Z")


class Fake(unittest.TestCase):
    """cuda-report --cpu with these programs."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.log = self.folder / "log"
        (self.folder / "bin").mkdir()
        for program in ("test-backend-ops", "llama-bench", "llama-perplexity", "llama-completion"):
            file = self.folder / "bin" / program
            file.write_text(textwrap.dedent(FAKE))
            file.chmod(0o755)
        for file in ("model.gguf", "text.txt"):
            (self.folder / file).write_text("")

    def start(self, *arguments, **env):
        f = self.folder
        return subprocess.Popen(
            [sys.executable, HERE / "cuda-report", "--cpu", "--bin", f / "bin", "--out", f / "out", "--work", f / "work",
             "--model", f / "model.gguf", "--answer-model", f / "model.gguf", "--text", f / "text.txt",
             "--pairs", "f16/f16 turbo4/turbo2", *arguments],
            env={**os.environ, "FAKE_LOG": str(self.log), "FAKE_FAIL": "", "FAKE_HANG": "", **env},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def report(self, *arguments, **env):
        """The exit code and report.md."""
        ran = self.start(*arguments, **env)
        self.said, _ = ran.communicate()
        page = self.folder / "out/report.md"
        return ran.returncode, page.read_text() if page.exists() else ""

    def ran(self):
        return self.log.read_text() if self.log.exists() else ""

    def test_everything_passes(self):
        code, page = self.report()
        self.assertEqual(code, 0, self.said + page)
        self.assertIn("**Complete**: everything passed", page)
        self.assertIn("| turbo4/turbo2 | 50.0 ± 0.5 (1.00) | 50.0 ± 0.5 (1.00) |", page)
        self.assertIn("| SET_ROWS | `turbo` | 1 | 0 | 0 |  |", page)
        self.assertIn("| f16/f16 | - | 0.00100 | 0.02000 | 99.5% |", page)
        self.assertIn("| turbo4/turbo4 | 0.01000 | 0.01100 | 0.01850 | 99.5% |", page)
        for step in ("Attention alone: logits", "compute-sanitizer"):
            self.assertIn(f"| {step} | left out: it needs CUDA |", page)
        # The first pair with a turbo type at the first depth before anything else.
        depths = [line.split("-d ")[1].split()[0] for line in self.ran().splitlines() if line.startswith("llama-bench")]
        self.assertEqual(depths, ["256", "256", "0", "0"])

    def test_a_failure_is_reported_and_the_rest_runs(self):
        code, page = self.report(FAKE_FAIL="-ctk turbo4 -ctv turbo2 -p")
        self.assertEqual(code, 1)
        self.assertIn("**Complete, with failures**", page)
        self.assertIn("- measuring turbo4/turbo2 at depth 256: ended with 3, see speed/turbo4-turbo2-256.err", page)
        self.assertEqual((self.folder / "out/speed/turbo4-turbo2-256.txt").read_text(), "halfway\n")
        self.assertRegex(page, r"\| f16/f16 \| 50\.0 ± 0\.5 \(1\.00\) \| 50\.0")
        self.assertIn("| copies | `turbo`".replace("copies", "CPY"), page)
        self.assertIn("test-backend-ops test -b CPU -o CPY", self.ran())

        # What passed is not run again, what failed is.
        self.log.unlink()
        code, page = self.report("--continue")
        self.assertEqual(code, 0, page)
        self.assertIn("**Complete**: everything passed", page)
        self.assertEqual([line.split()[0] for line in self.ran().splitlines()], ["llama-bench"] * 2)

    def test_results_that_differ_are_failures(self):
        for env, words in (
            ({"FAKE_F16": "0.03"}, "f16/f16: the mean KL divergence to the CPU's f16 is 0.03, above 0.0200"),
            ({"FAKE_KLD": "0.5"}, "turbo4/turbo4: the mean KL divergence to the CPU's f16 is 0.5, above 0.0185"),
            ({"FAKE_KLD": "nan"}, "the mean KL divergence to the CPU's f16 is nan, above"),
        ):
            with self.subTest(env):
                code, page = self.report("--steps", "answer", **env)
                self.assertEqual(code, 1)
                self.assertIn(words, page)
            shutil.rmtree(self.folder / "out")

    def test_no_minutes_at_all(self):
        code, page = self.report("--minutes", "0")
        self.assertEqual(code, 0, self.said)
        self.assertIn("**Out of time**: 0 minutes were not enough for: Operators of decoding and prefill; Speed;", page)
        self.assertIn("| Speed | **not run**: there was no time left |", page)
        self.assertEqual(self.ran(), "")
        code, page = self.report("--continue")
        self.assertEqual(code, 0, self.said)
        self.assertIn("**Complete**: everything passed", page)

    def test_one_that_is_stopped_says_so_and_goes_on(self):
        ran = self.start(FAKE_HANG="perf -b CPU -o SET_ROWS")
        hangs = pathlib.Path(f"{self.log}.hangs")
        while ran.poll() is None and not (hangs.exists() and hangs.read_text()):
            time.sleep(0.02)
        ran.send_signal(signal.SIGTERM)
        said, _ = ran.communicate()
        self.assertEqual(ran.returncode, 128 + signal.SIGTERM, said)
        self.assertTrue(is_gone(int(hangs.read_text())))
        page = (self.folder / "out/report.md").read_text()
        self.assertIn("**Stopped** while measuring SET_ROWS", page)
        self.assertIn("| SET_ROWS | `turbo` | 1 | 0 | 0 |  |", page)
        self.log.unlink()
        code, page = self.report("--continue")
        self.assertEqual(code, 0, self.said)
        self.assertIn("**Complete**: everything passed", page)
        self.assertIn("SET_ROWS", self.ran().splitlines()[0])

    def test_what_is_wrong_from_the_start(self):
        def refused(code, words, *arguments):
            self.assertEqual(self.report(*arguments)[0], code, arguments)
            self.assertIn(words, self.said)
            self.assertFalse((self.folder / "out").exists())

        refused(2, "--minutes -1 is less than 0", "--minutes", "-1")
        refused(2, '"f16" is not of the form K/V', "--pairs", "f16")
        refused(2, '"1k" is not a number', "--depths", "1k")
        refused(2, '"colour" is none of', "--steps", "colour")
        refused(2, '--cmake: "GGML_X=ON" is not of the form', "--cmake", "GGML_X=ON")
        refused(2, '--jobs 0 is less than 1', "--cmake", "-DGGML_X=ON", "--jobs", "0")
        refused(1, "has no test-backend-ops", "--bin", str(self.folder))
        refused(1, "is not there", "--model", str(self.folder / "none.gguf"))
        self.report("--minutes", "0")
        self.assertEqual(self.report()[0], 1)
        self.assertIn("has a report already", self.said)


class Command(steps.Step):
    """A step of one shell command."""

    def __init__(self, name, weight, command, essential=False):
        self.name = self.title = name
        self.weight, self.command, self.essential = weight, command, essential

    def left_out(self, options):
        return None

    def parts(self, context):
        yield steps.Part(self.name, f"doing {self.name}", ["sh", "-c", self.command])


class Engine(unittest.TestCase):
    """Steps and their time, without cuda-report."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name)
        (self.out / "state").mkdir()

    def run_steps(self, seconds, *all_steps):
        context = steps.Context(type("Options", (), {"out": self.out, "bin": self.out})(), Budget(seconds))
        with contextlib.redirect_stderr(io.StringIO()):
            steps.run_steps(context, all_steps, lambda context, state: None)
        return context

    def test_a_step_out_of_its_time_is_cut_and_its_group_ends(self):
        # A child of the shell's own writes its number: it has to be gone, too.
        slow = Command("slow", 1, "sleep 3600 & echo $!; wait")
        context = self.run_steps(300, slow, Command("next", 299, "echo there"))
        self.assertIn("**cut off** after", context.status["slow"])
        self.assertEqual(context.short, ["slow"])
        self.assertIn("passed", context.status["next"])
        self.assertEqual(context.failures, [])
        self.assertEqual((self.out / "next.txt").read_text(), "there\n")
        child = int((self.out / "slow.txt").read_text())
        self.assertTrue(is_gone(child))
        record = json.loads((self.out / "state/slow.json").read_text())
        self.assertTrue(record["cut"] and not record["passed"])

    def test_what_ignores_the_signal_ends_as_well(self):
        context = self.run_steps(100, Command("deaf", 1, "trap '' TERM; while :; do sleep 1; done"), Command("next", 99, "true"))
        self.assertIn("**cut off**", context.status["deaf"])
        self.assertIn("passed", context.status["next"])

    def test_an_essential_step_that_fails_ends_all(self):
        context = self.run_steps(None, Command("build", 1, "exit 2", essential=True), Command("next", 1, "true"))
        self.assertEqual(context.status["next"], "**not run**: see build")
        self.assertIn("doing build: ended with 2", context.failures[0])

    def test_time_that_is_not_needed_goes_to_later_steps(self):
        now = [0.0]
        budget = Budget(100, lambda: now[0])
        self.assertEqual(budget.share(50, [30, 20]), 50)
        now[0] = 20.0
        self.assertEqual(budget.share(30, [20]), 48)
        now[0] = 130.0
        self.assertEqual((budget.left(), budget.share(20, [])), (0, 0))
        self.assertIsNone(Budget(None).share(1, []))


class Texts(unittest.TestCase):
    """What programs print."""

    def test_cases(self):
        text = ("  CPY(a): \x1b[1;32mOK\x1b[0m\n  CPY(b): not supported [CUDA0]\n[CPY] NMSE = 1 > 0.5   CPY(c): FAIL\n"
                "  CPY(d): [CPY] NMSE = 0.3 \x1b[1;31mFAIL\x1b[0m\n  DUP(a): OK\n")
        self.assertEqual(operators.cases(text, "CPY"), (1, ["CPY(d): [CPY] NMSE = 0.3 FAIL"], 1))

    def test_measured(self):
        self.assertEqual(answer.measured("Mean    KLD:   0.012345 ± 0.1\nSame top p: 97.5 ± 1 %\n"), (0.012345, 97.5))
        self.assertIsNone(answer.measured("Mean    KLD:   0.012345"))

    def test_times(self):
        text = "  SET_ROWS(type_src=f32,type_dst=turbo4,r=512,v=0):     8192 runs -    98.50 us/run -     2048 kB/run -  20 GB/s\n"
        ((parameters, us),) = writing.times(text, "SET_ROWS").items()
        self.assertEqual((writing.parameter(parameters, "type_dst"), writing.parameter(parameters, "r"), us), ("turbo4", "512", 98.5))


if __name__ == "__main__":
    unittest.main()
