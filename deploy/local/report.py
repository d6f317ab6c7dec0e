"""The study's page: one HTML file with plots as inline SVG, readable without a network, and the numbers as results.json."""

import html
import io
import json
import os
import pathlib

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from valuescope import v1

COLOURS = {"intrinsic": "#2a6f97", "prompted": "#c8553d", "shared": "#588157", "neutral": "#8d99ae"}
# Legends stand below the plot, where no line can hide behind them.
BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncol": 2}
plt.rcParams.update(
    {
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "svg.fonttype": "none",
        "svg.hashsalt": "valuescope",
    }
)


def write(results, directory):
    """Writes index.html and results.json; returns the page's path. A page appears whole or not at all."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (("results.json", numbers(results)), ("index.html", page(results))):
        partial = directory / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, directory / name)
    return directory / "index.html"


def numbers(results):
    layers = results["pair"].layers
    return json.dumps(
        {
            "value": results["value"]["value"],
            "model": results["model"].name,
            "weights_digest": results["model"].weights_digest,
            "queries": results["queries"],
            "responses": results["responses"],
            "cosine_by_layer": {entry.layer: entry.cosine for entry in layers},
            "retained_norm_by_layer": {
                entry.layer: entry.retained_norm_fraction for entry in layers
            },
            "chosen": {
                kind: {"layer": layer, "coefficient": c}
                for kind, (_, layer, c) in results["chosen"].items()
            },
            "development": [
                {"vector": kind, "layer": layer, "coefficient": coefficient, **row}
                for (kind, layer, coefficient), row in results["development"].items()
            ],
            "test": results["test"],
            "vectors": {
                name: {"name": v.name, "digest": v.digest} for name, v in results["vectors"].items()
            },
            "job": results["job"].name,
            "timings_seconds": results["timings"],
            "seconds": results["seconds"],
        },
        indent=2,
    )


# --- Plots -----------------------------------------------------------------------------------------------------------


def svg(figure):
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def test_bars(results):
    rows = results["test"]
    names = list(rows)
    colours = [
        COLOURS["intrinsic"]
        if n.startswith("intrinsic")
        else COLOURS["prompted"]
        if n.startswith("prompted")
        else COLOURS["shared"]
        if n.startswith("shared")
        else COLOURS["neutral"]
        for n in names
    ]
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.6), sharey=True)
    columns = [
        ("answers_with_word", f"answers with a value word (of {rows['unsteered']['answers']})"),
        ("words", "value words in all"),
        ("distinct_2", "Distinct-2"),
        ("perplexity", "perplexity, unsteered model"),
    ]
    for axis, (column, title) in zip(axes, columns, strict=True):
        values = [rows[n][column] for n in names]
        axis.barh(names, values, color=colours)
        axis.set_title(title, fontsize=10)
        axis.grid(axis="y", visible=False)
        for y, value in enumerate(values):
            axis.annotate(
                f" {value:.2f}" if isinstance(value, float) else f" {value}",
                (value, y),
                va="center",
                fontsize=8,
            )
    axes[0].invert_yaxis()
    return svg(figure)


def layer_lines(results):
    layers = results["pair"].layers
    x = [entry.layer for entry in layers]
    figure, axes = plt.subplots(1, 3, figsize=(14, 3.4))
    axes[0].plot(x, [entry.cosine for entry in layers], color="black", label="cosine")
    disattenuated = [
        entry.disattenuated_cosine if entry.HasField("disattenuated_cosine") else np.nan
        for entry in layers
    ]
    axes[0].plot(x, disattenuated, "--", color=COLOURS["neutral"], label="disattenuated")
    axes[0].plot(
        x,
        [entry.retained_norm_fraction for entry in layers],
        color=COLOURS["shared"],
        label="norm kept when orthogonalised",
    )
    axes[0].set_title("intrinsic against prompted vector")
    for condition, statistics in results["statistics"].items():
        colour = COLOURS[condition]
        sx = [s.layer for s in statistics]
        axes[1].plot(
            sx,
            [s.reliability if s.HasField("reliability") else np.nan for s in statistics],
            color=colour,
            label=f"{condition} reliability",
        )
        axes[1].plot(
            sx,
            [s.auroc if s.HasField("auroc") else np.nan for s in statistics],
            ":",
            color=colour,
            label=f"{condition} AUROC, held out",
        )
        axes[2].plot(sx, [s.relative_norm for s in statistics], color=colour, label=condition)
        told = [s for s in statistics if s.HasField("squared_norm_interval") and s.norm > 0]
        axes[2].fill_between(
            [s.layer for s in told],
            [s.relative_norm * s.norm_interval.lower / s.norm for s in told],
            [s.relative_norm * s.norm_interval.upper / s.norm for s in told],
            color=colour,
            alpha=0.2,
            linewidth=0,
        )
    axes[1].set_title("how well the data pin the vectors down")
    axes[2].set_title("norm of the vector over mean |x|, interval of the true one")
    for axis in axes:
        axis.set_xlabel("layer (block, 0-based)")
        axis.legend(fontsize=8, frameon=False, **BELOW)
    return svg(figure)


def development_heatmaps(results):
    kinds = list(results["chosen"])
    figure, axes = plt.subplots(1, len(kinds), figsize=(5.2 * len(kinds), 3.2), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        cells = {
            (layer, c): row for (k, layer, c), row in results["development"].items() if k == kind
        }
        layers = sorted({layer for layer, _ in cells})
        coefficients = sorted({c for _, c in cells})
        grid = np.array(
            [[cells[layer, c]["answers_with_word"] for c in coefficients] for layer in layers]
        )
        axis.imshow(grid, cmap="Blues" if kind == "intrinsic" else "Oranges", aspect="auto", vmin=0)
        for i, layer in enumerate(layers):
            for j, c in enumerate(coefficients):
                row = cells[layer, c]
                mark = " ★" if results["chosen"][kind][1:] == (layer, c) else ""
                axis.annotate(
                    f"{row['answers_with_word']}{mark}\nppl {row['perplexity']:.0f}",
                    (j, i),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if grid[i, j] > 0.6 * grid.max() else "black",
                )
        axis.set_xticks(range(len(coefficients)), [f"{c:g}" for c in coefficients])
        axis.set_yticks(range(len(layers)), layers)
        axis.set_xlabel("coefficient")
        axis.set_ylabel("layer")
        axis.set_title(f"{kind}: development answers with a value word")
        axis.grid(visible=False)
    return svg(figure)


CLASSES = [
    (v1.NEURON_CLASS_SHARED, "shared", COLOURS["shared"]),
    (v1.NEURON_CLASS_INTRINSIC, "intrinsic", COLOURS["intrinsic"]),
    (v1.NEURON_CLASS_PROMPTED, "prompted", COLOURS["prompted"]),
    (v1.NEURON_CLASS_UNCLASSIFIED, "no class within 30 degrees", COLOURS["neutral"]),
]


def neuron_plots(results):
    figure, axes = plt.subplots(1, 2, figsize=(14, 3.4))
    layers = results["neurons"].layers
    x = [entry.layer for entry in layers]
    below = np.zeros(len(layers))
    for number, name, colour in CLASSES:
        counts = np.array(
            [
                sum(c.count for c in entry.classes if getattr(c, "class") == number)
                for entry in layers
            ]
        )
        axes[0].bar(x, counts, bottom=below, color=colour, label=name)
        below += counts
    axes[0].set_title("classes of the neurons kept in each layer (write directions)")
    axes[0].legend(fontsize=8, frameon=False, **BELOW)
    sums = {int(entry["layer"]): entry["score_sum"] for entry in results["attribution"]["layers"]}
    axes[1].bar(list(sums), list(sums.values()), color=COLOURS["intrinsic"])
    axes[1].set_title(
        "direct contribution of a layer's neurons to the intrinsic vector (sum of scores)"
    )
    for axis in axes:
        axis.set_xlabel("layer (block, 0-based)")
    return svg(figure)


# --- The page --------------------------------------------------------------------------------------------------------

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { margin-top: 2.2rem; font-size: 1.2rem; }
table { border-collapse: collapse; font-size: 14px; } th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; } .examples td, .examples th { text-align: left; vertical-align: top; }
svg { max-width: 100%; height: auto; } .note { color: #555; } code { font-size: 90%; } .big { font-size: 1.25rem; }
mark { background: #ffe8a3; }
"""


def table(header, rows, kind=""):
    head = "".join(f"<th>{html.escape(str(h))}</th>" for h in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="{kind}"><tr>{head}</tr>{body}</table>'


def headline(results):
    test, chosen = results["test"], results["chosen"]
    parts = []
    for kind in ("intrinsic", "prompted"):
        _, layer, coefficient = chosen[kind]
        before, after = test["unsteered"], test[kind]
        ratio = f"{after['words'] / before['words']:.1f} times" if before["words"] else "from none"
        parts.append(
            f"Along the <b>{kind}</b> vector (layer {layer}, coefficient {coefficient:g}) value words in the answers to "
            f"{before['answers']} unseen queries go from {before['words']} to <b>{after['words']}</b> ({ratio}); answers with a "
            f"value word from {before['answers_with_word']} to <b>{after['answers_with_word']}</b>; Distinct-2 from "
            f"{before['distinct_2']:.2f} to {after['distinct_2']:.2f}."
        )
    randoms = [row["answers_with_word"] for name, row in test.items() if name.startswith("random")]
    parts.append(
        f"Random directions of the same norm: {', '.join(map(str, randoms))} answers with a value word."
    )
    return "".join(f"<p class='big'>{p}</p>" for p in parts)


def page(results):
    value, model = results["value"], results["model"]
    test_rows = [
        (
            html.escape(name),
            f"{row['answers_with_word']} / {row['answers']}",
            row["words"],
            f"{row['distinct_2']:.3f}",
            f"{row['perplexity']:.1f}",
            row["receipt_positions"],
        )
        for name, row in results["test"].items()
    ]
    response_rows = [
        (condition, row["generated"], row["with_word"], f"{row['distinct_2']:.3f}")
        for condition, row in results["responses"].items()
    ]
    top_rows = [
        (f"{n['layer']}.{n['index']}", f"{n['score']:.4f}")
        for n in results["attribution"]["top"][:12]
    ]
    example_rows = [
        (
            html.escape(query),
            *(
                html.escape(texts[name])
                for name in ("unsteered", "intrinsic", "prompted", "random 1")
            ),
        )
        for query, texts in results["examples"]
    ]
    timing_rows = [
        (html.escape(name), f"{seconds:.1f}") for name, seconds in results["timings"].items()
    ]
    warnings = "".join(f"<p class='note'>{html.escape(w)}</p>" for w in results["pair"].warnings)
    vectors = "".join(
        f"<li>{condition}: <code>{v.name}</code></li>"
        for condition, v in results["vectors"].items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(value["value"])}: intrinsic and prompted</title>
<style>{STYLE}</style></head><body>
<h1>{html.escape(value["value"].capitalize())}, intrinsic and prompted</h1>
<p class="note">{html.escape(value["definition"])} Model {html.escape(model.name)}, {model.num_layers} layers, on {model.device};
{results["seconds"]:.0f} s in all. The method is that of arXiv 2509.24319.</p>
{headline(results)}
<h2>Steering unseen queries</h2>
{test_bars(results)}
{table(("setting", "answers with a word", "words", "Distinct-2", "perplexity", "steered positions"), test_rows)}
<p class="note">Layer and coefficient were chosen on {results["queries"]["development"]} development queries; these
{results["queries"]["test"]} test queries were used for nothing else. Parts and random directions have the norm that the chosen
intrinsic setting adds, at its layer. Perplexity is that of the answers under the unsteered model; answers are greedy,
with an explicitly empty system message.</p>
<h2>The two vectors</h2>
{layer_lines(results)}
{table(("condition", "responses", "with a value word", "Distinct-2"), response_rows)}
<p class="note">Difference in means of the residual stream over response tokens, at most the same number of responses of each
label.</p>{warnings}
<h2>Choosing layer and strength</h2>
{development_heatmaps(results)}
<h2>Neurons</h2>
{neuron_plots(results)}
{table(("neuron (layer.index)", "direct contribution"), top_rows)}
<p class="note">The neurons that contribute most to the intrinsic vector, from the job <code>{results["job"].name}</code>.</p>
<h2>Answers</h2>
{table(("query", "unsteered", "intrinsic", "prompted", "random 1"), example_rows, "examples")}
<h2>Where the numbers come from</h2>
<ul><li>weights <code>{model.weights_digest}</code></li>{vectors}</ul>
{table(("step", "seconds"), timing_rows)}
<p class="note">All numbers are in <code>results.json</code> beside this page.</p>
</body></html>
"""
