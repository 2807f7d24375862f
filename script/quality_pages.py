"""The tables of README.md and docs/quality.md, from the results in docs/quality."""

import json
import re
import sys
from pathlib import Path

import known_models

ROOT = known_models.ROOT
RESULTS = ROOT / "docs" / "quality"
MODELS = known_models.MODELS
PAGES = [ROOT / "README.md", ROOT / "docs" / "quality.md"]
# What a page has between `<!-- script/quality: NAME -->` and `<!-- end -->`.
REGION = re.compile(r"(<!-- script/quality: ([\w. -]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
# Names of presets, which tables have beside the pair.
PRESETS = {"q8_0/turbo4": "quality", "turbo4/turbo4": "k4v4", "turbo4/turbo3": "k4v3", "turbo4/turbo2": "k4v2", "turbo3/turbo2": "k3v2"}
# Of the README's table: bold are those that it recommends to begin with.
README = ["f16/f16", "q8_0/q8_0", "q5_0/q5_0", "q4_0/q4_0", "turbo4/turbo4", "turbo4/turbo3", "turbo3/turbo3", "turbo4/turbo2", "turbo2/turbo2"]
BOLD = ["turbo4/turbo4"]
MISSING = "not measured"


def stem(model, ctx=512, keys="default"):
    """The name of a file of results, without its ending."""
    return model + (f"-{ctx}" if ctx != 512 else "") + (f"-{keys}" if keys != "default" else "")


def load(model, ctx=512, keys="default"):
    """Results of a file by pair, {} where there is none."""
    path = RESULTS / f"{stem(model, ctx, keys)}.json"
    if not path.is_file():
        return {}
    return {f"{row['k']}/{row['v']}": row for row in json.loads(path.read_text())["results"]}


def without_paths(result):
    """Names of files alone: their folders are those of one machine."""
    result["model"]["file"] = Path(result["model"]["file"]).name
    result["settings"]["text"] = Path(result["settings"]["text"]).name
    calib = result["settings"]["kv_calib"]
    if calib not in (None, "auto", "off"):
        result["settings"]["kv_calib"] = Path(calib).name
    for row in result["results"]:
        if row["kv_fit"] and row["kv_fit"]["file"]:
            row["kv_fit"]["file"] = Path(row["kv_fit"]["file"]).name
    return result


def pictured():
    """The files of which the picture is made."""
    return [path for path in (RESULTS / f"{stem(name)}.json" for name in MODELS) if path.is_file()]


def spaced(pair):
    return pair.replace("/", " / ")


def number(row, key, digits, factor=1.0):
    return MISSING if row is None else f"{factor * row[key]:.{digits}f}"


def kld(row):
    """Four digits below 1, where they mean something."""
    if row is None:
        return MISSING
    mean = row["mean_kld"]
    return "0" if mean == 0 else f"{mean:.4f}" if mean < 1 else f"{mean:.2f}"


def table(header, rows):
    return [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def full_table(rows):
    """Rows with what follows their pair."""
    header = ["K / V", "bits per value", "KV MiB", "PPL", "mean KLD", "+-", "99% KLD", "top-1 %"]
    return table(header, ([spaced(f"{row['k']}/{row['v']}") + remark, number(row, "bits_per_value", 2), number(row, "kv_mib", 2),
                           number(row, "ppl", 3), number(row, "mean_kld", 4), number(row, "mean_kld_error", 4),
                           number(row, "kld_99", 4), number(row, "same_top", 1, 100)] for remark, row in rows))


def readme():
    """The model of the first screen."""
    results = load("qwen-1.5b")
    rows = []
    for pair in README:
        row = results.get(pair)
        name = f"**{spaced(pair)}**" if pair in BOLD else spaced(pair)
        if row is None:
            rows.append([name, *[MISSING] * 5])
            continue
        bits = row["bits_per_value"]
        ppl = number(row, "ppl", 2 if row["ppl"] < 100 else 0)
        rows.append([name, f"{bits:g}", f"{16 / bits:.1f}x", ppl, kld(row), number(row, "same_top", 1, 100)])
    return table(["K / V", "bits per value", "smaller than f16", "perplexity", "mean KLD", "same top token, %"], rows)


def others():
    """A line for each of the other models."""
    lines = []
    for name, known in MODELS.items():
        if name != "qwen-1.5b":
            results = load(name)
            of = {t: kld(results.get(f"{t}/{t}")) for t in ["turbo4", "turbo3", "turbo2", "q8_0", "q5_0", "q4_0"]}
            lines.append(f"- {known.title}: turbo4 {of['turbo4']}, turbo3 {of['turbo3']}, turbo2 {of['turbo2']}; "
                         f"q8_0 {of['q8_0']}, q5_0 {of['q5_0']}, q4_0 {of['q4_0']}.")
    return lines


def models():
    """Mean divergence of all pairs and models."""
    all_results = {name: load(name) for name in MODELS}
    pairs = list(dict.fromkeys(pair for results in all_results.values() for pair in results if pair != "f16/f16"))
    rows = []
    for pair in pairs:
        found = [results.get(pair) for results in all_results.values()]
        bits = next(row["bits_per_value"] for row in found if row)
        preset = f" (`{PRESETS[pair]}`)" if pair in PRESETS and pair != "q8_0/turbo4" else ""
        rows.append([spaced(pair) + preset, f"{bits:.2f}", *(kld(row) for row in found)])
        scaled = [load(name, keys="scales").get(pair) for name in MODELS]
        if any(scaled):
            preset = f" (`{PRESETS[pair]}`)" if pair in PRESETS else ""
            rows.append([f"{spaced(pair)}, with scales{preset}", f"{bits:.2f}", *(kld(row) for row in scaled)])
    return table(["K / V", "bits per value", *(known.title for known in MODELS.values())], rows)


def scales():
    """Without scales and with them, at the contexts at which any model was measured without."""
    rows = []
    for ctx in [512, 2048, 4096]:
        both = [(load(name, ctx, "anchors"), load(name, ctx)) for name in MODELS]
        if any(off for off, _ in both):
            for pair in ["turbo4/turbo4", "turbo3/turbo3", "turbo2/turbo2"]:
                rows.append([str(ctx), spaced(pair), *(f"{kld(off.get(pair))}, {kld(on.get(pair))}" for off, on in both)])
    return table(["context", "K / V", *(known.title for known in MODELS.values())], rows)


def full(name):
    """All of a model."""
    results = load(name)
    return full_table([("", row) for row in results.values()]) if results else [MISSING]


PARTS = {"readme": readme, "others": others, "models": models, "scales": scales}


def region(name):
    """The lines of a region."""
    return PARTS[name]() if name in PARTS else full(name)


def made(text):
    """A page with its regions made anew."""
    def one(match):
        if match[2] not in [*PARTS, *MODELS]:
            sys.exit(f"error: there is no table '{match[2]}'")
        return match[1] + "".join(f"{line}\n" for line in region(match[2])) + match[4]
    return REGION.sub(one, text)


def write():
    for path in sorted(RESULTS.glob("*.json")):
        rewrite(path, lambda text: json.dumps(without_paths(json.loads(text)), indent=1) + "\n")
    for page in PAGES:
        rewrite(page, made)


def rewrite(path, make):
    """Leaves alone what is as it has to be: turboquant would be built anew."""
    text = path.read_text()
    if make(text) != text:
        path.write_text(make(text))


def check():
    """Ends with an error where a page is stale, or the models are not those of script/models."""
    if sorted(known_models.fetchable()) != sorted(MODELS):
        sys.exit(f"error: script/models has {known_models.fetchable()}, script/known_models.py {list(MODELS)}")
    for page in PAGES:
        text = page.read_text()
        if not REGION.search(text):
            sys.exit(f"error: {page.name} has no table of script/quality")
        if made(text) != text:
            sys.exit(f"error: tables of {page.name} are not those of docs/quality: run `script/quality --pages`")
