"""The report of value studies: every number on it is one of the results, everything from models and people is escaped, no plot is without
words. How it looks is for `check_report_in_browser.py`."""

import html.parser
import json
import math
import re
import xml.etree.ElementTree

import pytest
from google.protobuf import json_format
from made_up_study import COEFFICIENTS, LAYERS, RANDOM, STRENGTHS, made_up_study

import valuescope as vs
from valuescope import v1
from valuescope.report import numbers
from valuescope.report.svg import Axis, Panel

SEVERAL = ("stimulation", "power", "security", "benevolence")
VOID = ("meta", "br")
# Prose that is no result: the level of intervals.
CONSTANTS = {"95", "95th"}


class Page(html.parser.HTMLParser):
    """The page's numbers, its other text, and its elements."""

    # Holds texts of models, digests and the like.
    SILENT = frozenset(("style", "code", "q", "blockquote"))

    def __init__(self, text):
        super().__init__()
        self.open, self.data, self.prose, self.elements = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        fields = dict(attributes)
        self.elements.append((tag, fields))
        if tag not in VOID:
            self.open.append((tag, fields.get("class") or ""))
        if tag == "data":
            self.data.append([fields["value"], ""])

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        tags = [tag for tag, _ in self.open]
        if "data" in tags:
            self.data[-1][1] += text
        elif (
            not {"style", "code", "q", "blockquote"} & set(tags) and ("g", "ticks") not in self.open
        ):
            self.prose.append(text)


def walked(message):
    """Every number and every text of a message."""
    found, texts = set(), []
    for field, value in message.ListFields():
        for one in [value] if not field.is_repeated else value:
            if field.message_type:
                inner, inner_texts = walked(one)
                found |= inner
                texts += inner_texts
            elif isinstance(one, str):
                texts.append(one)
            else:
                found.add(float(one))
    return found | {0.0}, texts


def shown_as(value):
    """All ways in which a number may stand on the page."""
    writers = (numbers.decimal, numbers.signed, numbers.percent, numbers.points, numbers.p_value)
    return {str(write(value)) for write in (*writers, numbers.count)}


@pytest.fixture(scope="module", params=[("stimulation",), SEVERAL], ids=len)
def study(request):
    results = made_up_study(request.param)
    if len(request.param) > 1:
        results.values[2].failure = "3 of 200 intrinsic responses express it, 10 are needed"
    text = vs.study_page(results)
    return results, text, Page(text)


def test_every_number_is_a_result_rounded_as_told(study):
    results, _, page = study
    known, _ = walked(results)
    assert len(page.data) > 1000
    for value, shown in set(map(tuple, page.data)):
        assert float(value) in known, (value, shown)
        assert shown in shown_as(float(value)), (value, shown)


def digits(text):
    """What holds a digit in a text."""
    return {word.rstrip(".,") for word in re.findall(r"[\w.,]*\d[\w.,]*", text)}


def test_prose_holds_no_other_number(study):
    results, _, page = study
    _, texts = walked(results)
    layers = {f"{layer}" for layer in range(LAYERS)}  # in titles of plots
    told = digits(" ".join(page.prose))
    assert "95" in told and told <= CONSTANTS | digits(" ".join(texts)) | layers


@pytest.mark.parametrize(
    "write, value, shown",
    [
        (numbers.decimal, 0.41372, "0.414"),
        (numbers.decimal, 14.26, "14.3"),
        (numbers.decimal, 1234.5, "1234"),
        (numbers.decimal, -0.02, "−0.020"),
        (numbers.decimal, 0.0000123, "1.2e−05"),
        (numbers.decimal, 2.0, "2"),
        (numbers.decimal, None, "–"),
        (numbers.decimal, math.nan, "–"),
        (numbers.percent, 0.41372, "41\u00a0%"),
        (numbers.percent, 0.0034, "0.3\u00a0%"),
        (numbers.percent, 0.0, "0\u00a0%"),
        (numbers.points, 0.296, "+30"),
        (numbers.points, -0.296, "−30"),
        (numbers.signed, 0.296, "+0.296"),
        (numbers.p_value, 0.0476, "0.048"),
        (numbers.p_value, 0.00012, "0.0001"),
        (numbers.count, 480, "480"),
        (numbers.count, 181440, "181\u202f440"),
    ],
)
def test_numbers_are_rounded_in_one_way(write, value, shown):
    assert str(write(value)) == shown


def test_counts_are_written_in_words():
    told = [numbers.in_words(number) for number in (0, 7, 13, 20, 43, 120)]
    assert told == ["none", "seven", "thirteen", "twenty", "forty-three", "a hundred or more"]


def test_texts_of_models_and_people_are_escaped():
    results = made_up_study(('<img src=x onerror="alert(1)">',))
    results.provenance.model = "models/<i>&"
    results.values[0].untested[0].reason = "<u>"
    results.paper[0].note = "<em>\"'"
    text = vs.study_page(results)
    for raw in (
        "<img",
        "<script",
        "<river>",
        "<shared>",
        "<i>&",
        "<u>",
        "<em>",
        "<change>",
        "<|im",
    ):
        assert raw not in text, raw
    for escaped in (
        "&lt;river&gt;",
        "Tea or &lt;b&gt;coffee&lt;/b&gt;?",
        "&lt;script&gt;",
        "&lt;em&gt;",
    ):
        assert escaped in text
    Page(text)


def test_nothing_is_fetched_and_nothing_runs(study):
    _, text, page = study
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "srcset", "style", "xlink:href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "#").startswith("#")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style and 'name="viewport"' in text


def test_links_lead_somewhere_and_names_of_places_are_unique(study):
    elements = study[2].elements
    places = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(places) == len(set(places))
    links = [attributes["href"][1:] for tag, attributes in elements if tag == "a"]
    assert len(links) >= 4 and set(links) <= set(places)


def test_every_plot_has_a_title_a_description_and_a_table(study):
    _, text, _ = study
    plots = re.findall(r"<svg.*?</svg>", text)
    assert len(plots) > 20
    for plot in plots:
        tree = xml.etree.ElementTree.fromstring(plot)
        assert tree.attrib["role"] == "img"
        assert tree[0].tag == "title" and tree[0].text and tree[1].tag == "desc"
        assert len(tree[1].text) > 30
        for number in re.findall(r' [xy][12]?="([^"]*)"', plot):
            assert -1 <= float(number) <= 600
    for figure in re.findall(r"<figure>.*?</figure>", text):
        assert re.search(r"<details><summary>The numbers</summary>.*<td", figure)


def section(text, identity):
    return re.search(rf'<section id="{identity}">.*?</section>', text)[0]


def test_points_that_break_the_guard_are_hollow_and_the_chosen_ones_ringed():
    results = made_up_study()
    text = vs.study_page(results)
    value = results.values[0]
    shown = [point for point in value.development_points if point.subject not in ("", "random")]
    drawn = section(text, "value-1-choosing")
    assert drawn.count('<circle class="hollow') == sum(not point.passes for point in shown) > 0
    assert drawn.count('<circle class="dot') == sum(point.passes for point in shown)
    assert drawn.count('<circle class="ring') == len(value.selections)
    tested = section(text, "value-1-steering")
    broken = [outcome for outcome in value.outcomes if not outcome.keeps_guard]
    assert tested.count('<circle class="hollow') == 2 and len(broken) == 2  # one of them random
    assert tested.count("broken: ") == len(broken)


def test_a_grid_of_many_layers_is_drawn_over_the_layers_and_lists_no_random_point():
    results = made_up_study()
    value = results.values[0]
    for point in [p for p in value.development_points if p.layers and p.layers[0] == 26]:
        for layer in (2, 5, 11, 17):
            other = value.development_points.add()
            other.CopyFrom(point)
            other.name, other.layers[:] = f"{point.name}/{layer}", [layer]
    drawn = section(vs.study_page(results), "value-1-choosing")
    first = re.search(r"<h4>Intrinsic vector</h4><svg.*?</svg>", drawn)[0]
    assert "layer (block)" in first and first.count("<polyline") == len(COEFFICIENTS)
    assert [
        len(p.split()) for p in re.findall(r'polyline class="[^"]*" points="([^"]*)"', first)
    ] == [8] * 3
    assert drawn.count("random directions, each at its best</td>") == len(COEFFICIENTS)


def test_other_languages_are_tables_of_what_was_chosen_in_the_studys_own():
    results = made_up_study()
    told = vs.study_page(results)
    (value,) = results.values
    assert told.count("In other languages") == 1
    rows = told.split("In other languages")[1].split("</section>")[0].count("<tr>")
    assert rows == 1 + len(value.transfers[0].outcomes)
    value.ClearField("transfers")
    assert "In other languages" not in vs.study_page(results)


def test_random_directions_are_one_band_and_rows_of_the_table():
    results = made_up_study()
    tested = section(vs.study_page(results), "value-1-steering")
    assert tested.count('<rect class="band random"') == 2
    assert tested.count("<td>random direction ") == RANDOM
    assert tested.count('text class="row"') == 2 * (2 + len(STRENGTHS) - 1 + 2)


def test_three_findings_say_what_steering_does_and_how_sure_it_is():
    found = vs.study_findings(made_up_study())
    assert len(found) == 3
    steering, sharing, paper = found
    for told in (
        "11 %",
        "80 unseen queries",
        "52 %",
        "block 14",
        "+42 points, 95 % +32 to +52",
        "68 %",
    ):
        assert told in steering, told
    assert "over all comparisons" in steering and "against random directions" in steering
    assert (
        "layer 14" in sharing and "cosine of 0.7" in sharing and "+12 points (intrinsic" in sharing
    )
    assert paper.startswith(
        "Of four comparisons with the paper: one supported, one contradicted, one undecided, one not measured."
    )
    assert (
        "Found here too: either vector keeps only part of its norm beside the other (stimulation)."
        in paper
    )
    assert "The other way round here: the intrinsic vector keeps answers more diverse." in paper


def test_findings_say_where_the_guard_breaks_or_nothing_was_tested():
    results = made_up_study()
    value = results.values[0]
    value.outcomes[2].keeps_guard = False
    del value.outcomes[3]
    steering = vs.study_findings(results)[0]
    assert "though the guard breaks there" in steering
    assert "cannot be steered along the prompted one within the guard" in steering


def test_findings_of_several_values_tell_the_one_that_moves_most():
    results = made_up_study(SEVERAL)
    for value, difference in zip(results.values, (0.1, 0.2, 0.6, 0.3), strict=True):
        for outcome in value.outcomes[2:4]:
            outcome.measures[0].difference = difference
    results.values[2].outcomes[2].keeps_guard = results.values[2].outcomes[3].keeps_guard = False
    assert vs.study_findings(results)[0].startswith(
        "Benevolence, of four values the one that moves most, is in 11 %"
    )


def test_findings_of_a_study_that_failed_say_why():
    results = made_up_study()
    results.values[0].failure = "too few <responses>"
    found = vs.study_findings(results)
    assert (
        found[0].startswith("No value has vectors")
        and found[1] == "stimulation: too few <responses>"
    )
    text = vs.study_page(results)
    assert "too few &lt;responses&gt;" in text and "value-1-steering" not in text


def test_a_result_is_the_same_page_in_whatever_form_it_comes(tmp_path):
    results = made_up_study()
    fields = json_format.MessageToDict(results, preserving_proto_field_name=True)
    text = json.dumps(fields)
    pages = {vs.study_page(form) for form in (results, fields, text, text.encode())}
    assert len(pages) == 1 and vs.study_page(results) in pages
    later = vs.study_page({**fields, "a_later_field": 1})
    assert later in pages
    place = vs.study_report(results, tmp_path / "report.html")
    assert place.read_text("utf-8") in pages
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_what_a_later_server_tells_is_shown_under_another_name():
    fields = json_format.MessageToDict(made_up_study(), preserving_proto_field_name=True)
    value = fields["values"][0]
    value["responses"][1]["condition"] = "STUDY_CONDITION_LATER"
    value["outcomes"][4]["subject"]["direction"] = "STUDY_DIRECTION_LATER"
    value["classification"]["classes"][0]["class"] = "NEURON_CLASS_LATER"
    text = vs.study_page(fields)
    assert '<text class="row"' in text and ">other</text>" in text and "<td>other</td>" in text


def without(results, *fields):
    for value in results.values:
        for field in fields:
            value.ClearField(field)
    return results


@pytest.mark.parametrize(
    "results",
    [
        v1.ValueStudyResult(),
        without(made_up_study(), "classification", "attributions", "causal_controls"),
        without(
            made_up_study(), "development_points", "selections", "outcomes", "answers", "untested"
        ),
        without(made_up_study(), "vectors", "decomposition", "prompts", "responses"),
    ],
    ids=["nothing", "no neurons", "no steering", "no vectors"],
)
def test_what_was_not_studied_leaves_no_empty_plot(results):
    page = Page(vs.study_page(results))
    assert "nan" not in " ".join(page.prose).split()
    known, _ = walked(results)
    assert all(float(value) in known for value, _ in page.data)
    assert len(vs.study_findings(results)) == 3


def test_a_study_without_random_directions_or_questionnaire_has_no_band_for_them():
    results = made_up_study()
    value = results.values[0]
    kept = [outcome for outcome in value.outcomes if not outcome.name.startswith("random")]
    del value.outcomes[:]
    value.outcomes.extend(kept)
    for outcome in value.outcomes:
        others = [one for one in outcome.measures if one.name != "questionnaire"]
        del outcome.measures[:]
        outcome.measures.extend(others)
    tested = section(vs.study_page(results), "value-1-steering")
    assert 'rect class="band' not in tested and tested.count("<svg") == 1


def test_lines_break_where_a_number_is_missing():
    panel = Panel("t", "d", Axis(0, 4, "x"), Axis(0, 1, "y"))
    panel.line([(0, 0.1), (1, 0.2), (2, None), (3, math.nan), (4, 0.3)], "plain")
    lines = re.findall(r'points="([^"]*)"', panel.svg())
    assert [len(line.split()) for line in lines] == [2, 1]


@pytest.mark.parametrize(
    "axis, ticks",
    [
        (Axis(-0.05, 1.03, ""), [0, 0.25, 0.5, 0.75, 1.0]),
        (Axis(0, 29, "", whole=True), [0, 10, 20]),
        (Axis(-0.3, 2.2, "", whole=True), [0, 1, 2]),
        (Axis(0.8, 320, "", logarithmic=True), [1, 4, 16, 64, 256]),
        (Axis(1e-5, 3e-5, ""), [1e-5, 1.5e-5, 2e-5, 2.5e-5, 3e-5]),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(axis, ticks):
    assert axis.ticks(5) == pytest.approx(ticks)
    assert all(0 <= axis.place(tick) <= 1 for tick in axis.ticks(5))
