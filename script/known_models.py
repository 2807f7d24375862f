"""The models that scripts measure: those of script/models."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Known(NamedTuple):
    title: str
    shape: str
    # Of 512 tokens: large models take longer, and have less noise.
    chunks: int


# By the names that script/models has, in the order in which the pages have them.
MODELS = {
    "qwen-1.5b": Known("Qwen2.5-Coder-1.5B", "Q4_K_M, head_dim 128", 2),
    "qwen": Known("Qwen2.5-Coder-0.5B", "Q4_K_M, head_dim 64", 4),
    "gemma": Known("Gemma-3-270M", "Q4_K_M, head_dim 256", 4),
    "smollm2": Known("SmolLM2-135M", "Q4_1, head_dim 64", 8),
}
# What is small enough to be fetched without being asked for.
DEFAULT = ["smollm2", "gemma"]
HELP = f"{', '.join(MODELS)} (fetched if need be), or GGUF files"


class Model(NamedTuple):
    # As in MODELS, or the file's without its ending.
    name: str
    path: Path
    chunks: int


def find(names):
    """Models by names and paths. Nothing is fetched before all of them are known to be some."""
    for name in names:
        if name not in MODELS and not Path(name).is_file():
            sys.exit(f"error: '{name}' is neither a GGUF file nor one of {', '.join(MODELS)}")
    return [model(name) for name in names]


def model(name):
    if name not in MODELS:
        # A file of script/models is that model, too.
        known = [k.chunks for title, k in MODELS.items() if Path(name).name.lower().startswith(k.title.lower())]
        return Model(Path(name).stem, Path(name), known[0] if known else 4)
    out = subprocess.run([ROOT / "script" / "models", name], check=True, stdout=subprocess.PIPE, text=True)
    return Model(name, Path(out.stdout.strip()), MODELS[name].chunks)


def fetchable():
    """The names that script/models knows."""
    out = subprocess.run([ROOT / "script" / "models", "names"], check=True, stdout=subprocess.PIPE, text=True)
    return out.stdout.split()
