"""A value study's result made up by code, as a server would leave it: every field that a page shows, with what may be missing missing.

Nothing in it was measured. Texts hold markup, so that whoever shows them must escape it.
"""

import numpy as np

from valuescope import v1

LAYERS = 30
STEERED = (8, 14, 20, 26)
COEFFICIENTS = (1.0, 2.0, 4.0)
FACTORS = (0.0, 2.0, 3.0)
PERCENTS = (1.0, 3.0)
RANDOM = 20
QUERIES = 80
INTRINSIC, PROMPTED = v1.STUDY_CONDITION_INTRINSIC, v1.STUDY_CONDITION_PROMPTED
# How much each direction moves answers, of what is left to move.
STRENGTHS = {
    v1.STUDY_DIRECTION_INTRINSIC: 0.42,
    v1.STUDY_DIRECTION_PROMPTED: 0.58,
    v1.STUDY_DIRECTION_INTRINSIC_ORTHOGONAL: 0.12,
    v1.STUDY_DIRECTION_PROMPTED_ORTHOGONAL: 0.31,
    v1.STUDY_DIRECTION_SHARED: 0.55,
    v1.STUDY_DIRECTION_INTRINSIC_UNIQUE: 0.06,
    v1.STUDY_DIRECTION_PROMPTED_UNIQUE: 0.2,
    v1.STUDY_DIRECTION_MEAN_DELTA: 0.15,
}
CLASSES = (
    v1.NEURON_CLASS_SHARED,
    v1.NEURON_CLASS_INTRINSIC,
    v1.NEURON_CLASS_PROMPTED,
    v1.NEURON_CLASS_UNCLASSIFIED,
)
ANSWERS = (
    "You could go for a walk & look at the <river>, then cook something.",
    "An adventurous day: take the first train, wherever it goes! Surprises await you.",
    "Stay in and read. A quiet day is a good day, and on Monday the week begins again.",
)


def interval(centre, half):
    return v1.Interval(lower=centre - half, upper=centre + half, level=0.95)


def made_up_study(names=("stimulation",), seed=1):
    """The result of a study of some values."""
    draw = np.random.default_rng(seed)
    result = v1.ValueStudyResult(format_version=1)
    result.provenance.CopyFrom(provenance())
    for layer in range(LAYERS):
        result.layers.add(layer=layer, norm=4 + 0.7 * layer, steered=layer in STEERED)
    result.num_random_directions, result.num_queries = RANDOM, 240
    result.num_development_queries, result.num_test_queries = 40, QUERIES
    for name in names:
        add_value(result.values.add(value=name), draw, several=len(names) > 1)
    steered = [o for value in result.values for o in value.outcomes if o.HasField("subject")]
    result.num_comparisons = sum(not o.subject.HasField("random_direction") for o in steered)
    if len(names) > 1:
        add_across(result, names, draw)
    add_paper(result)
    result.warnings.append("the questionnaire has fewer than 5 items of each value")
    return result


def provenance():
    return v1.Provenance(
        format_version=1,
        model="models/SmolLM2-135M-Instruct",
        model_digest="5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
        tokenizer_digest="9ca9acddb6525a194ec8ac7a87f24fbba7232a9a15ffa1af0c1224fcd888e47c",
        template_digest="0f4a1b2c9ca9acddb6525a194ec8ac7a87f24fbba7232a9a15ffa1af0c1224fc",
        site=v1.SITE_RESIDUAL_POST,
        layer_convention="block, 0-based",
        sign_rule="mean(expressing) - mean(non-expressing)",
        judge="word list, sha256 0f4a1b2c",
        seeds=[20250924],
        compute_dtype=v1.DATA_TYPE_FLOAT32,
        determinism="bitwise on cpu float32",
        hardware_class="x86_64 avx2",
        options='{"coefficients":[1,2,4],"note":"<script>alert(1)</script>"}',
    )


def add_value(value, draw, several):
    for condition, message in ((INTRINSIC, ""), (PROMPTED, "Put <change> first.")):
        rendered = f"<|im_start|>system\n{message}<|im_end|>\n<|im_start|>user\nWhat now?<|im_end|>"
        value.prompts.add(condition=condition, system_message=message, rendered=rendered)
    for condition, expressing in ((INTRINSIC, 71), (PROMPTED, 203)):
        share = expressing / 480
        value.responses.add(
            condition=condition,
            num_responses=480,
            num_empty=2,
            num_expressing=expressing,
            expressing_share=share,
            expressing_interval=interval(share, 0.034),
            mean_tokens=57.25,
        )
    add_vectors(value, draw)
    add_neurons(value, draw)
    directions = list(STRENGTHS)[: None if several else -1]
    add_development(value, draw, directions)
    add_outcomes(value, draw, directions)
    add_transfer(value, draw)
    value.untested.add(
        name="neurons_prompted", reason="no point kept the guard on development queries"
    )
    for query in ("What should I do on Sunday?", "Tea or <b>coffee</b>?", "How do I begin?"):
        answers = value.answers.add(query=query)
        for place, outcome in enumerate(value.outcomes):
            if not outcome.subject.HasField("random_direction"):
                text = ANSWERS[place % 3] * (1 + place % 2)
                answers.answers.add(outcome=outcome.name, text=text, expresses=place % 3 == 1)
    value.warnings.append("layer 3: the vectors point apart, so that <shared> has no meaning")


def add_vectors(value, draw):
    for condition, size in ((INTRINSIC, 0.9), (PROMPTED, 1.5)):
        vector = value.vectors.add(condition=condition, vector=f"vectors/{value.value}-{condition}")
        for layer in range(LAYERS):
            norm = size * (1 + 0.3 * layer) * (1 + 0.05 * draw.standard_normal())
            reliability = 0.97 - 0.9 * np.exp(-layer / 5) / size
            row = vector.statistics.add(layer=layer, num_expressing=71, num_non_expressing=409)
            row.norm, row.relative_norm = norm, 0.02 * size + 0.002 * layer
            row.norm_interval.CopyFrom(interval(0.9 * norm, 0.18 * norm))
            row.squared_norm_interval.CopyFrom(v1.Interval(lower=0.1, upper=1.0, level=0.95))
            row.within_noise = layer < 2
            if layer:
                row.reliability = reliability
                row.auroc = 0.5 + 0.42 * reliability
    parts = value.decomposition
    parts.shared, parts.difference = "vectors/s", "vectors/d"
    for layer in range(LAYERS):
        first, second = (vector.statistics[layer].norm for vector in value.vectors)
        cosine = 0.35 + 0.4 * np.sin(layer / 10) + 0.03 * draw.standard_normal()
        if layer == 3:
            cosine = -0.05
        entry = parts.layers.add(layer=layer, cosine=cosine)
        entry.intrinsic_norm, entry.prompted_norm = first, second
        if layer > 1:
            entry.disattenuated_cosine = min(1.04, cosine / 0.85)
        entry.retained_norm_fraction = np.sqrt(1 - cosine**2)
        entry.difference_defined, entry.shared_meaningful = True, cosine > 0
        shared = cosine if cosine > 0 else 0.1
        parts.planes.add(
            layer=layer,
            intrinsic_shared=first * np.sqrt((1 + shared) / 2),
            intrinsic_difference=first * np.sqrt((1 - shared) / 2),
            prompted_shared=second * np.sqrt((1 + shared) / 2),
            prompted_difference=-second * np.sqrt((1 - shared) / 4),
        )
        floor = parts.cosines.add(layer=layer, cosine=cosine)
        if layer > 1:
            floor.noise_floor = 0.25 + 0.5 * np.exp(-layer / 6)


def add_neurons(value, draw):
    found = value.classification
    found.neuron_set = "neuronSets/g"
    shares = np.array([0.31, 0.12, 0.19, 0.38])
    for layer in range(LAYERS):
        entry = found.layers.add(layer=layer, num_neurons=1536, num_members=15)
        counts = draw.multinomial(15, shares)
        for kind, size, null in zip(CLASSES, counts, (2.5, 2.5, 2.5, 7.5), strict=True):
            made = entry.classes.add(count=int(size), expected_count=null)
            setattr(made, "class", kind)
    kept = 15 * LAYERS
    for place, kind in enumerate(CLASSES):
        size = sum(entry.classes[place].count for entry in found.layers)
        made = found.classes.add(count=size, expected_count=kept * (1 / 6 if place < 3 else 0.5))
        setattr(made, "class", kind)
        made.share = size / kept
        made.share_interval.CopyFrom(interval(size / kept, 0.043))
    for condition in (INTRINSIC, PROMPTED):
        scored = value.attributions.add(condition=condition, neuron_set="neuronSets/a")
        for layer in range(LAYERS):
            total = 0.05 * np.exp(-(((layer - 17) / 6) ** 2)) + 0.004 * draw.standard_normal()
            scored.layers.add(layer=layer, num_neurons=1536, num_members=100, score_sum=total)
        for rank in range(12):
            scored.top.add(layer=int(draw.integers(LAYERS)), index=rank, score=0.09 / (1 + rank))
        for kind in CLASSES:
            both = int(draw.integers(3, 14))
            made = scored.class_overlaps.add(
                intersection=both, expected_intersection=both / 3.7, jaccard=both / 240
            )
            setattr(made, "class", kind)
        control = value.causal_controls.add(condition=condition, layer=14, num_responses=80)
        control.full, control.empty = 6.4, 1.1
        for size in (1, 4, 16, 64, 256):
            point = control.points.add(size=size, target=6.4 - 0.8 * np.log2(size + 1) / 2)
            point.standard_error, point.p_value = 0.12, 1 / 21 if size > 4 else 0.38
            point.random_mean = 6.4 - 0.02 * size**0.5
            point.random_lower, point.random_upper = (
                point.random_mean - 0.2,
                point.random_mean + 0.2,
            )


def reached(strength, layer, coefficient):
    """Share of answers that express the value."""
    best = np.exp(-(((layer - 15) / 9) ** 2))
    return 0.1 + strength * best * min(1.0, coefficient / 2.2)


def subject_of(value, direction):
    name = v1.StudyDirection.Name(direction).removeprefix("STUDY_DIRECTION_").lower()
    return name, v1.StudySubject(direction=direction, vector=f"vectors/{value.value}/{name}")


def add_point(value, name, subject, layer, strength, draw, random=None, **knob):
    share = min(0.98, reached(strength, layer, abs(next(iter(knob.values())))))
    share = round(40 * (share + 0.02 * draw.standard_normal())) / 40
    fails = knob.get("coefficient", 0) >= 4 and layer > 10
    point = value.development_points.add(name=name, subject=subject, layers=[layer], **knob)
    point.passes = not fails
    if random is not None:
        point.random = random
    if fails:
        point.failed_bounds.append("responses distinct_2 ratio_at_least")
    point.measures.add(evaluation="responses", measure="expressing_share", value=max(0.0, share))
    point.measures.add(evaluation="responses", measure="distinct_2", value=0.81 - 0.05 * share)
    point.measures.add(evaluation="choices", measure="accuracy", value=0.6)
    return point


def add_development(value, draw, directions):
    baseline = value.development_points.add(name="baseline", passes=True)
    baseline.measures.add(evaluation="responses", measure="expressing_share", value=0.1)
    for direction in directions:
        name, subject = subject_of(value, direction)
        for layer in STEERED:
            for c in COEFFICIENTS:
                add_point(
                    value, f"{name}/{layer}/{c}", subject.vector, layer, STRENGTHS[direction], draw,
                    coefficient=c,
                )  # fmt: skip
        choose(value, subject, subject.vector)
    for kind in CLASSES[:2]:
        subject = "neurons_" + v1.NeuronClass.Name(kind).removeprefix("NEURON_CLASS_").lower()
        for percent in PERCENTS:
            for factor in FACTORS:
                name = f"{subject}/{percent}/{factor}"
                point = add_point(value, name, subject, 14, 0.02 * percent, draw, factor=factor)
                # A class is scaled in all layers together.
                point.layers[:], point.top_percent, point.max_angle = STEERED, percent, 30.0
        choose(value, v1.StudySubject(neurons=kind), subject)
    for number in range(RANDOM):
        for layer in STEERED:
            for c in COEFFICIENTS:
                add_point(
                    value, f"random_{number}/{layer}/{c}", "random", layer, 0.03, draw,
                    random=number, coefficient=c,
                )  # fmt: skip


def choose(value, subject, name):
    points = [p for p in value.development_points if p.subject == name]
    passing = [p for p in points if p.passes]
    best = max(passing, key=lambda p: p.measures[0].value)
    made = value.selections.add(subject=subject)
    made.selection.subject, made.selection.point = name, best.name
    made.selection.value, made.selection.num_points = best.measures[0].value, len(points)
    made.selection.num_passing, made.selection.num_random = len(passing), RANDOM
    made.selection.num_random_passing, made.selection.p_value = RANDOM, 1 / (RANDOM + 1)


def add_outcomes(value, draw, directions):
    measured(value.outcomes.add(name="baseline", keeps_guard=True), 0.11, 0, draw, baseline=True)
    measured(value.outcomes.add(name="system_message", keeps_guard=True), 0.44, 1, draw)
    for direction in directions:
        name, subject = subject_of(value, direction)
        outcome = value.outcomes.add(name=name, subject=subject, layers=[14])
        outcome.coefficient, outcome.keeps_guard = 2.0, direction != v1.STUDY_DIRECTION_SHARED
        if not outcome.keeps_guard:
            outcome.failed_bounds.append("responses perplexity ratio_at_most")
        measured(outcome, 0.1 + STRENGTHS[direction], 2, draw)
    for kind in CLASSES[:2]:
        name = v1.NeuronClass.Name(kind).removeprefix("NEURON_CLASS_").lower()
        outcome = value.outcomes.add(name=f"neurons_{name}", keeps_guard=True, layers=STEERED)
        outcome.subject.neurons = kind
        outcome.factor, outcome.top_percent, outcome.max_angle = 2.0, 1.0, 30.0
        measured(outcome, 0.16, 2, draw)
    for number in range(RANDOM):
        outcome = value.outcomes.add(name=f"random_{number}", keeps_guard=number != 3, layers=[20])
        outcome.subject.random_direction = number
        outcome.coefficient = 2.0
        measured(outcome, 0.09 + 0.003 * number, 2, draw)


def add_transfer(value, draw):
    transfer = value.transfers.add(language="de", num_comparisons=8)
    for own in value.outcomes:
        if not own.name.startswith("random_"):
            outcome = transfer.outcomes.add()
            outcome.CopyFrom(own)
            outcome.ClearField("measures")
            measured(outcome, 0.2 + 0.1 * draw.random(), 2, draw, baseline=own.name == "baseline")


def measured(outcome, share, kind, draw, baseline=False):
    share = round(share * QUERIES) / QUERIES
    numbers = {
        "expressing_share": (share, 0.1, 0.11),
        "distinct_2": (0.84 - 0.2 * share + 0.01 * draw.standard_normal(), 0.02, 0.84),
        "expectation_adjusted_distinct_2": (0.87 - 0.2 * share, 0.02, 0.87),
        "perplexity": (8 + 22 * share, None, 8.0),
        "mean_tokens": (51 + 4 * draw.standard_normal(), 1.7, 51.0),
        "refusal_rate": (0.0125 * kind, 0.02, 0.0),
        "coherent_share": (1 - 0.1 * share, 0.03, 1.0),
        "instruction_0": (0.5, 0.1, 0.5),
        "questionnaire": (0.9 * share + 0.03 * draw.standard_normal(), 0.21, 0.1),
        "questionnaire_label_mass": (0.93, None, 0.94),
        "choices_accuracy": (0.6 - 0.1 * share, 0.17, 0.6),
    }
    for name, (value, half, plain) in numbers.items():
        measure = outcome.measures.add(name=name, value=value)
        if half is not None:
            measure.interval.CopyFrom(interval(value, half))
        if baseline:
            continue
        measure.difference, measure.num_clusters = value - plain, QUERIES
        if half is not None:
            measure.difference_interval.CopyFrom(interval(value - plain, half))
        if name in ("expressing_share", "questionnaire", "choices_accuracy"):
            measure.p_value = 0.0004 if abs(value - plain) > half else 0.21
        if name == "expressing_share" and kind == 2:
            measure.adjusted_p_value = min(1.0, 9 * measure.p_value)
            measure.random_p_value = 1 / 21 if share > 0.2 else 0.43
    outcome.measures.add(name="instruction_1")


def add_across(result, names, draw):
    result.mean_delta = "vectors/m"
    for layer in range(LAYERS):
        result.mean_deltas.add(
            layer=layer,
            norm=1.4,
            explained_variance=0.5 + 0.1 * np.sin(layer / 6),
            mean_pairwise_cosine=0.4 + 0.1 * np.cos(layer / 7),
        )
        sure = result.value_intervals.add(layer=layer)
        sure.explained_variance.CopyFrom(interval(0.5, 0.2))
        sure.mean_pairwise_cosine.CopyFrom(interval(0.4, 0.3))
        for condition in (INTRINSIC, PROMPTED):
            for place, first in enumerate(names):
                for second in names[place + 1 :]:
                    result.cross_cosines.add(
                        first=first,
                        second=second,
                        condition=condition,
                        layer=layer,
                        cosine=0.4 + 0.2 * draw.standard_normal(),
                    )
    if len(names) < 4:
        return
    for layer in range(LAYERS):
        fit = result.circumplexes.add(
            layer=layer,
            r_squared=0.2 + 0.3 * np.sin(layer / 10),
            null_mean=0.16,
            null_95th_percentile=0.36,
            permutation_p_value=0.04,
            distinct_permutations=181440,
            null_p_value=0.03,
        )
        for place, name in enumerate(names):
            angle = 2 * np.pi * place / len(names)
            x, y = np.cos(angle) + 0.3 * draw.standard_normal(), np.sin(angle)
            fit.points.add(value=name, x=x, y=y, expected_angle=36.0 * place)


def add_paper(result):
    one = result.paper.add(
        name="questionnaire_prompted_over_intrinsic",
        description="The prompted vector moves the questionnaire more than the intrinsic one.",
        value=result.values[0].value,
        paper="+2.21 against +1.74",
        found=0.14,
        agreement=v1.PAPER_AGREEMENT_UNDECIDED,
    )
    one.interval.CopyFrom(interval(0.14, 0.31))
    two = result.paper.add(
        name="retained_norm_fraction",
        description="Norm that is kept after orthogonalising.",
        value=result.values[0].value,
        paper="32 to 73 %",
        found=0.78,
        boundary=0.32,
        agreement=v1.PAPER_AGREEMENT_SUPPORTED,
    )
    two.interval.CopyFrom(interval(0.78, 0.05))
    three = result.paper.add(
        name="diversity_intrinsic_over_prompted",
        description="Answers steered along the intrinsic vector stay more diverse.",
        paper="Distinct-2 .362 against .342",
        found=-0.02,
        agreement=v1.PAPER_AGREEMENT_CONTRADICTED,
    )
    three.interval.CopyFrom(interval(-0.02, 0.01))
    result.paper.add(
        name="circumplex_r_squared",
        description="The shared axes lie on Schwartz's circle.",
        paper="R² .6 to .7",
        agreement=v1.PAPER_AGREEMENT_NOT_MEASURED,
        note="needs at least four values",
    )
