"""Runs a command in a process group of its own, with a limit, and its output in files.

The group ends with the command, however that ends: when its time is over, when this program is stopped, and when the command
itself has ended and left something running.
"""

import os
import signal
import subprocess
import time

GRACE = 3.0  # seconds between SIGTERM and SIGKILL


class Stopped(Exception):
    """This program got a signal."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


class Result:
    """How a command ended: its exit code (128 and more for a signal, as a shell says it), or that it was cut off."""

    def __init__(self, code, seconds, cut):
        self.code, self.seconds, self.cut = code, seconds, cut


signals = []  # that have come


def catch_signals():
    """From now on SIGINT and SIGTERM end what runs, and raise Stopped then: not in the midst of something else."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda number, _frame: signals.append(number))


def raise_if_stopped():
    if signals:
        raise Stopped(signals[0])


def signal_group(process, number):
    """Whether there was a process in the group."""
    try:
        os.killpg(process.pid, number)
        return True
    except (ProcessLookupError, PermissionError):  # the latter on macOS, where all of them are zombies
        return False


def end_group(process):
    """SIGTERM, and after GRACE seconds SIGKILL, to whatever is left of the group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not signal_group(process, number):
            break
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            process.poll()  # reaps the leader
            if not signal_group(process, 0):
                break
            time.sleep(0.02)
    process.wait()


def run(command, stdout, stderr, limit=None):
    """Runs `command` for at most `limit` seconds; its output is in the files `stdout` and `stderr` as it comes."""
    raise_if_stopped()
    begin = time.monotonic()
    with open(stdout, "wb") as out, open(stderr, "wb") as err:
        try:
            process = subprocess.Popen(
                [str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        except OSError as e:
            err.write(f"{command[0]}: {e.strerror}\n".encode())
            return Result(126 if isinstance(e, PermissionError) else 127, 0.0, False)
    cut = False
    try:
        while process.poll() is None and not signals and not cut:
            cut = limit is not None and time.monotonic() - begin >= limit
            if not cut:
                time.sleep(0.02)
    finally:
        end_group(process)
    raise_if_stopped()
    code = process.returncode
    return Result(code if code >= 0 else 128 - code, time.monotonic() - begin, cut)
