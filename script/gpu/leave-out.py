#!/usr/bin/env python3
"""Leaves out of an edited llama.cpp the CUDA instances that script/gpu/cuda-report needs none of, so that it builds sooner.

    leave-out.py TREE

What is left out of ggml/src/ggml-cuda/template-instances:

    fattn-tile   attention without tensor cores: all of it; devices from Turing on do not use it at these head sizes
    fattn-mma    attention with tensor cores: head sizes other than 64, 128 and 256, and groups of more than 8 heads
    mmq          products with quantized weights: types other than q4_0, q4_1 and q8_0

A case that is left out has a function that ends the program with a message that names it, and what has it.
"""

import pathlib
import re
import sys

STUBS = "left-out"  # FAMILY-left-out.cu: upstream's CMake takes files by their first letters
HEADER = "turbo-left-out.h"

# Macro of a case, by the first letters of files' names: which cases stay.
FAMILIES = {
    "fattn-tile": lambda macro, args: False,
    "fattn-mma": lambda macro, args: args[0] == args[1] and args[0] in ("64", "128", "256") and int(args[3]) <= 8,
    "mmq": lambda macro, args: macro == "DECL_MMQ_CASE" and args[0] in ("GGML_TYPE_Q4_0", "GGML_TYPE_Q4_1", "GGML_TYPE_Q8_0"),
}

# What the stubs are declared like: where upstream's headers no longer have this, programs would not link.
DECLARED = {
    "fattn-tile.cuh": r"template <int DKQ, int DV>\nvoid ggml_cuda_flash_attn_ext_tile_case\(ggml_backend_cuda_context & ctx, ggml_tensor \* dst\)",
    "fattn-mma-f16.cuh": r"template <int DKQ, int DV, int ncols1, int ncols2>\n"
                         r"void ggml_cuda_flash_attn_ext_mma_f16_case\(ggml_backend_cuda_context & ctx, ggml_tensor \* dst\)",
    "mmq.cuh": r"template <ggml_type type, ggml_prec prec_src1(?: = GGML_PREC_Q8)?>\n"
               r"void mul_mat_q_case\(ggml_backend_cuda_context & ctx, const mmq_args & args, cudaStream_t stream\)",
}

STUB_HEADER = """\
// What stands for CUDA instances that script/gpu/leave-out.py has left out of this tree: the same names, and an end with a
// message. The templates are declared as upstream's headers declare them, which are not included, since they define them.

#pragma once

#include "ggml.h"

struct ggml_backend_cuda_context;
struct mmq_args;
typedef struct CUstream_st * cudaStream_t;

#define TURBO_LEFT_OUT(what, ...)                                                                                        \\
    GGML_ABORT("this build does not have " what ": it is of the archive of script/gpu/cuda-kit, which has what "          \\
        "cuda-report needs alone; script/gpu/cuda-kit --whole packs all of llama.cpp", __VA_ARGS__)

template <int DKQ, int DV> void ggml_cuda_flash_attn_ext_tile_case(ggml_backend_cuda_context &, ggml_tensor *) {
    TURBO_LEFT_OUT("attention without tensor cores (head sizes %d and %d)", DKQ, DV);
}
#define DECL_FATTN_TILE_CASE(DKQ, DV) \\
    template void ggml_cuda_flash_attn_ext_tile_case<DKQ, DV>(ggml_backend_cuda_context & ctx, ggml_tensor * dst)

template <int DKQ, int DV, int ncols1, int ncols2> void ggml_cuda_flash_attn_ext_mma_f16_case(ggml_backend_cuda_context &, ggml_tensor *) {
    TURBO_LEFT_OUT("attention for head sizes %d and %d, %d queries of %d heads at once", DKQ, DV, ncols1, ncols2);
}
#define DECL_FATTN_MMA_F16_CASE(DKQ, DV, ncols1, ncols2) \\
    template void ggml_cuda_flash_attn_ext_mma_f16_case<DKQ, DV, ncols1, ncols2>(ggml_backend_cuda_context & ctx, ggml_tensor * dst)

template <ggml_type type, ggml_prec prec_src1> void mul_mat_q_case(ggml_backend_cuda_context &, const mmq_args &, cudaStream_t) {
    TURBO_LEFT_OUT("products with weights of %s", ggml_type_name(type));
}
#define DECL_MMQ_CASE(type) \\
    template void mul_mat_q_case<type, GGML_PREC_Q8>(ggml_backend_cuda_context & ctx, const mmq_args & args, cudaStream_t stream)
#define DECL_MMQ_CASE_W4A4(type) \\
    template void mul_mat_q_case<type, GGML_PREC_Q4>(ggml_backend_cuda_context & ctx, const mmq_args & args, cudaStream_t stream)
"""


def case_of(line):
    """(macro, arguments) of a line that declares a case, or None for one that may be of any file."""
    m = re.fullmatch(r"(DECL_\w+)\((.*)\);", line)
    if m:
        return m[1], [argument.strip() for argument in m[2].split(",")]
    if line and not line.startswith(("//", "#include ")):
        raise ValueError(f'"{line}" is no case')
    return None


def leave_out(tree):
    """Prints how many cases stay. Raises ValueError where a file is not as expected, and changes nothing then."""
    base = tree / "ggml/src/ggml-cuda"
    folder = base / "template-instances"
    if (base / HEADER).exists():
        raise ValueError(f"{base / HEADER} is there: this has been done before")
    for header, declaration in DECLARED.items():
        if not (base / header).is_file() or not re.search(declaration, (base / header).read_text()):
            raise ValueError(f"{base / header} declares otherwise what is to be left out: see DECLARED")
    writes, removals, said = {base / HEADER: STUB_HEADER}, [], []
    for family, stays in FAMILIES.items():
        files = sorted(folder.glob(f"{family}*.cu"))
        if not files:
            raise ValueError(f"{folder} has no {family}*.cu")
        gone, n_stay = [], 0
        for file in files:
            lines, kept, n_left = file.read_text().splitlines(), [], 0
            for line in lines:
                try:
                    case = case_of(line)
                except ValueError as e:
                    raise ValueError(f"{file}: {e}") from None
                if case and not stays(*case):
                    gone.append(line)
                    continue
                kept.append(line)
                n_left += case is not None
            n_stay += n_left
            if not n_left:
                removals.append(file)
            elif len(kept) < len(lines):
                writes[file] = "\n".join(kept) + "\n"
        if not gone or not (n_stay or family == "fattn-tile"):
            raise ValueError(f"{folder}: {n_stay} cases of {family} would stay and {len(gone)} go, which is not what is meant")
        text = f'// Left out by script/gpu/leave-out.py.\n\n#include "../{HEADER}"\n\n' + "\n".join(gone) + "\n"
        writes[folder / f"{family}-{STUBS}.cu"] = text
        said.append(f"{family}: {n_stay} cases stay, {len(gone)} go")
    for file in removals:
        file.unlink()
    for file, text in writes.items():
        file.write_text(text)
    print("\n".join(said))


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        leave_out(pathlib.Path(sys.argv[1]))
    except ValueError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
