#!/usr/bin/env python3
"""Runs a static Linux program on an emulated processor with AVX-512: Bochs' Sapphire Rapids.

usage: emulate-avx512.py PROGRAM [ARGUMENT...]

For programs that compute and print: one thread, no files. The emulated machine has no kernel. It
starts in 64-bit mode with memory mapped one to one, and each system call comes back here through a
cache instruction; the few that a Rust program makes are answered below, all others fail with ENOSYS.
Needs the package bochscpu-python. The exit status is the program's; 70 is the emulator's own.
"""

import ctypes
import mmap
import os
import struct
import sys

# The package wants two functions of glibc 2.38 that older systems lack: see script/test-avx512.
if "BOCHSCPU_SHIM" in os.environ:
    ctypes.CDLL(os.environ["BOCHSCPU_SHIM"], ctypes.RTLD_GLOBAL)

import bochscpu
import bochscpu.cpu
import bochscpu.memory

PAGE = 4096
GIB = 1 << 30
# Physical memory, which is also the address space: page tables, the system call stub, program, heap, stack.
MEMORY = 1 * GIB
PAGE_TABLES = 0x1000
STUB = 0x8000
STUB_CODE = bytes.fromhex("0f09" "ffe1")  # wbinvd; jmp rcx (where SYSCALL left the return address)
MAPPINGS = 0x2000_0000
STACK_TOP = MEMORY - PAGE
ENOSYS = 38


def become_sapphire_rapids():
    """Makes the package's one processor model, a Cannon Lake without VNNI, a Sapphire Rapids.

    Bochs has both, but the package offers no choice: the one's constructor is made to jump to the other's.
    """
    library = ctypes.CDLL(bochscpu._bochscpu.__file__)
    address = lambda name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    cannon_lake = address("_Z23create_corei3_cnl_cpuidP8BX_CPU_C")
    sapphire_rapids = address("_Z28create_sapphire_rapids_cpuidP8BX_CPU_C")
    read_write_execute = 7
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(cannon_lake & -PAGE), 2 * PAGE, read_write_execute):
        sys.exit("emulate-avx512: mprotect failed")
    # mov rax, address; jmp rax
    ctypes.memmove(cannon_lake, b"\x48\xb8" + sapphire_rapids.to_bytes(8, "little") + b"\xff\xe0", 12)


class Machine:
    def __init__(self, program, arguments):
        self.memory = mmap.mmap(-1, MEMORY)
        self.host = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.mapped = MAPPINGS
        self.status = None
        self.fault = None

        # One gigabyte, one to one: present, writable, and the entry of the second level maps a large page.
        self.write(PAGE_TABLES, struct.pack("<Q", (PAGE_TABLES + PAGE) | 7))
        self.write(PAGE_TABLES + PAGE, struct.pack("<Q", 0x87))
        self.write(STUB, STUB_CODE)
        entry, headers, break_ = self.load(program)
        self.break_ = (break_ + PAGE - 1) & -PAGE
        stack = self.push_arguments([program, *arguments], entry, headers)
        self.session = self.processor(entry, stack)

    def write(self, address, data):
        self.memory[address : address + len(data)] = data

    def load(self, path):
        """Copies the segments: the entry point, the program headers, and the end of the last segment."""
        elf = open(path, "rb").read()
        kind, machine = struct.unpack_from("<HH", elf, 16)
        if elf[:5] != b"\x7fELF\x02" or (kind, machine) != (2, 62):
            sys.exit(f"{path}: not a static x86-64 program at a fixed address")
        entry, offset = struct.unpack_from("<QQ", elf, 24)
        size, count = struct.unpack_from("<HH", elf, 54)
        end = 0
        for i in range(count):
            kind, _, start, address, _, in_file, in_memory, _ = struct.unpack_from("<IIQQQQQQ", elf, offset + i * size)
            if kind == 1:
                self.write(address, elf[start : start + in_file])
                end = max(end, address + in_memory)
                if start <= offset < start + in_file:
                    headers = (address + offset - start, size, count)
        return entry, headers, end

    def push_arguments(self, arguments, entry, headers):
        """The stack as the ABI wants it at the entry point: argc, argv, environment, auxiliary vector."""
        text = STACK_TOP - 16 * PAGE
        self.write(text, bytes(range(16)))  # AT_RANDOM
        random, at, pointers = text, text + 16, []
        for argument in arguments + ["RUST_BACKTRACE=0"]:
            pointers.append(at)
            self.write(at, argument.encode() + b"\0")
            at += len(argument) + 1
        address, size, count = headers
        # AT_PHDR, AT_PHENT, AT_PHNUM, AT_PAGESZ, AT_ENTRY, AT_UID .. AT_EGID, AT_SECURE, AT_RANDOM
        auxiliary = [3, address, 4, size, 5, count, 6, PAGE, 9, entry, 11, 0, 12, 0, 13, 0, 14, 0, 23, 0, 25, random, 0, 0]
        words = [len(arguments), *pointers[:-1], 0, pointers[-1], 0, *auxiliary]
        stack = (text - 8 * len(words)) & -16
        self.write(stack, struct.pack(f"<{len(words)}Q", *words))
        return stack

    def processor(self, entry, stack):
        session = bochscpu.Session()
        session.missing_page_handler = lambda gpa: bochscpu.memory.page_insert(gpa & -PAGE, self.host + (gpa & -PAGE))
        for gpa in range(0, MEMORY, PAGE):
            bochscpu.memory.page_insert(gpa, self.host + gpa)
        state = bochscpu.State()
        bochscpu.cpu.set_long_mode(state)
        state.cr0 = 0x8000_0033  # PG, NE, ET, MP, PE
        state.cr3 = PAGE_TABLES
        state.cr4 = 0x4_0620  # OSXSAVE, OSXMMEXCPT, OSFXSR, PAE
        state.efer = 0xD01  # NXE, LMA, LME, SCE
        state.xcr0 = 0xE7  # x87, SSE, AVX and the three parts of AVX-512
        state.mxcsr, state.mxcsr_mask = 0x1F80, 0xFFFF
        state.fpcw, state.fptw = 0x37F, 0xFFFF
        state.star, state.lstar, state.sfmask = 0x0008_0008 << 32, STUB, 0
        state.rflags = 2
        for name, attributes in [("cs", 0xA09B), ("ss", 0xC093), ("ds", 0xC093), ("es", 0xC093), ("fs", 0xC093), ("gs", 0xC093)]:
            segment = bochscpu.Segment()
            segment.present, segment.selector, segment.base = True, 8 if name == "cs" else 16, 0
            segment.limit, segment.attr = 0xFFFF_FFFF, attributes
            setattr(state, name, segment)
        state.rip, state.rsp = entry, stack
        session.cpu.state = state
        return session

    def run(self):
        hook = bochscpu.Hook()
        hook.cache_cntrl = lambda session, *_: self.system_call(session)
        hook.exception = lambda session, _, vector, code: self.exception(session, vector, code)
        self.session.run([hook])
        if self.fault:
            print(self.fault, file=sys.stderr)
        return 70 if self.status is None else self.status

    def exception(self, session, vector, code):
        cpu = session.cpu
        self.fault = f"emulate-avx512: exception {vector} (code {code}) at {cpu.rip:#x}, cr2 {cpu.cr2:#x}"
        session.stop()

    def system_call(self, session):
        cpu = session.cpu
        a, b, c = cpu.rdi, cpu.rsi, cpu.rdx
        match cpu.rax:
            case 1 if a in (1, 2):  # write
                os.write(a, self.memory[b : b + c])
                result = c
            case 20 if a in (1, 2):  # writev
                result = 0
                for i in range(c):
                    start, size = struct.unpack_from("<QQ", self.memory, b + 16 * i)
                    result += os.write(a, self.memory[start : start + size])
            case 9:  # mmap: anonymous memory, never given back
                result = self.mapped
                self.mapped += (b + PAGE - 1) & -PAGE
            case 12:  # brk
                if a:
                    self.break_ = a
                result = self.break_
            case 158 if a == 0x1002:  # arch_prctl(ARCH_SET_FS)
                segment = cpu.fs
                segment.base = b
                cpu.fs = segment
                result = 0
            case 318:  # getrandom: the same bytes each time
                self.write(a, bytes(b))
                result = b
            case 10 | 11 | 13 | 14 | 131 | 218 | 273 | 7:
                # mprotect, munmap, rt_sigaction, rt_sigprocmask, sigaltstack, set_tid_address, set_robust_list, poll
                result = 0
            case 39 | 186:  # getpid, gettid
                result = 1
            case 60 | 231:  # exit, exit_group
                self.status = a & 255
                session.stop()
                result = 0
            case 62 | 200 | 234:  # kill, tkill, tgkill: abort()
                self.status = 134
                session.stop()
                result = 0
            case _:
                result = -ENOSYS
        cpu.rax = result & (1 << 64) - 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    become_sapphire_rapids()
    sys.exit(Machine(sys.argv[1], sys.argv[2:]).run())
