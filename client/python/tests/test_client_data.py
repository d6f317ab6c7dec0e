"""What the client makes of arrays, prompts and chunks, without a server."""

import copy
import math
import pickle
import sys
from typing import ClassVar

import grpc
import numpy as np
import pytest

import valuescope as vs
from valuescope import given, html, progress, results, v1
from valuescope.crc32c import crc32c
from valuescope.prompts import to_capture_inputs, to_prompt, to_prompts, to_responses


def test_an_extraction_names_no_layers_where_a_site_has_none():
    responses = [vs.labelled("a", "b", True), vs.labelled("a", "c", False)]
    assert not vs.extraction_request("models/m", responses, site="embedding").HasField("layers")
    assert vs.extraction_request("models/m", responses).layers.all
    assert list(vs.extraction_request("models/m", responses, layers=[3]).layers.list.layers) == [3]


def test_an_extraction_names_what_was_chosen_and_leaves_the_rest_to_the_server():
    responses = [vs.labelled("a", "b", True), vs.labelled("a", "c", False)]
    unchosen = vs.extraction_request("models/m", responses)
    assert unchosen.method == v1.EXTRACTION_METHOD_UNSPECIFIED
    assert unchosen.pooling == v1.POOLING_UNSPECIFIED
    request = vs.extraction_request(
        "models/m", responses, method="linear_probe", inverse_regularization=0.5
    )
    assert request.method == v1.EXTRACTION_METHOD_LINEAR_PROBE
    assert request.inverse_regularization == 0.5
    for given_pooling in ("last_token", v1.POOLING_LAST_TOKEN):
        request = vs.extraction_request("models/m", responses, pooling=given_pooling)
        assert request.pooling == v1.POOLING_LAST_TOKEN
    with pytest.raises(ValueError, match="pca_centered"):
        vs.extraction_request("models/m", responses, method="lda")
    with pytest.raises(ValueError, match="token_mean"):
        vs.extraction_request("models/m", responses, pooling="last")


def test_what_the_server_generates_is_said_in_few_words():
    contrast = [vs.Condition("be bold", expresses=True), vs.Condition(expresses=False)]
    made = vs.Generated("why?", conditions=contrast, samples_per_query=2, draw_seed=3, seed=4)
    request = vs.extraction_request("models/m", generated=made)
    assert request.generated == v1.GeneratedResponses(
        queries=["why?"],
        conditions=[
            v1.GenerationCondition(system_messages=["be bold"], expresses=True),
            v1.GenerationCondition(system_messages=[""], expresses=False),
        ],
        sampling=v1.SamplingParams(seed=4),
        samples_per_query=2,
        seed=3,
    )
    judged = vs.Generated(
        "artifacts/a", conditions=vs.Condition(["a", "b"]), judge=vs.WordList("x")
    )
    assert judged.to_message() == v1.GeneratedResponses(
        queries_artifact="artifacts/a",
        conditions=[v1.GenerationCondition(system_messages=["a", "b"])],
        sampling=v1.SamplingParams(),
        judge=v1.Judge(word_list=v1.WordListJudge(words=["x"])),
    )
    rubric = vs.Rubric("models/j", "{query} {response}", 0.0).to_message().rubric
    assert rubric.HasField("threshold")
    assert not vs.Rubric("models/j", "").to_message().rubric.HasField("threshold")


def test_an_extraction_has_one_source_of_responses():
    for sources in ({}, {"responses": "artifacts/a", "generated": v1.GeneratedResponses()}):
        with pytest.raises(TypeError, match="one of the two"):
            vs.extraction_request("models/m", **sources)
    with pytest.raises(TypeError, match="queries"):
        vs.Generated([1])


def test_crc32c_equals_the_published_check_values():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_crc32c_of_long_data_equals_the_byte_loop():
    data = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    assert crc32c(data) == crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int32", "int64"])
def test_arrays_survive_the_round_trip(dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    back = vs.to_numpy(vs.from_numpy(array))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_a_transposed_array_is_sent_row_major():
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(vs.to_numpy(vs.from_numpy(array)), array)


def test_bfloat16_becomes_float32_without_loss():
    tensor = v1.Tensor(dtype=v1.DATA_TYPE_BFLOAT16, shape=[2], data=b"\x80\x3f\x00\xc0")
    np.testing.assert_array_equal(vs.to_numpy(tensor), [1.0, -2.0])


def test_an_empty_system_message_is_not_the_same_as_none():
    assert vs.chat("hi") == [{"role": "user", "content": "hi"}]
    assert vs.chat("hi", system="")[0] == {"role": "system", "content": ""}


def test_a_wrong_scope_is_refused_with_the_allowed_ones():
    with pytest.raises(ValueError, match="from_last_prompt"):
        vs.Steer("vectors/x", tokens="everywhere").to_intervention()


def test_every_edit_becomes_its_operation():
    rows = np.arange(4, dtype=np.float32)
    where = {"layers": [1, 2], "tokens": [0, -1], "preserve_norm": True}
    edits = {
        "add": vs.Steer(rows, 2.0, **where),
        "project_out": vs.ProjectOut([rows, rows], 0.5, **where),
        "clamp": vs.Clamp("vectors/x", 0.0, source_layer=3, **where),
        "scale_neurons": vs.ScaleNeurons([(1, 5)], 0.0, **where),
        "ablate_neurons": vs.AblateNeurons("neuronSets/s", neuron_class="shared", **where),
        "replace": vs.Replace(np.ones((2, 2, 4)), **where),
    }
    for operation, edit in edits.items():
        message = edit.to_intervention()
        assert message.WhichOneof("operation") == operation
        assert list(message.layers.list.layers) == [1, 2]
        assert list(message.tokens.positions) == [0, -1]
        assert message.preserve_norm
        on_neurons = operation.endswith("neurons")
        assert message.site == (v1.SITE_MLP_NEURONS if on_neurons else v1.SITE_RESIDUAL_POST)
    made = {name: getattr(edit.to_intervention(), name) for name, edit in edits.items()}
    assert list(made["project_out"].tensor.shape) == [2, 4]
    assert made["project_out"].strength == 0.5
    assert made["clamp"].HasField("value")
    assert made["clamp"].vector == "vectors/x"
    assert made["clamp"].source_layer == 3
    assert made["scale_neurons"].HasField("factor")
    assert [(n.layer, n.index) for n in made["scale_neurons"].neurons] == [(1, 5)]
    assert made["ablate_neurons"].neuron_set == "neuronSets/s"
    assert getattr(made["ablate_neurons"], "class") == v1.NEURON_CLASS_SHARED
    assert made["ablate_neurons"].mode == v1.ABLATION_MODE_ZERO
    assert list(made["replace"].tensor.shape) == [2, 2, 4]


def test_rows_follow_their_layers_in_whatever_order_these_are_given():
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    for layers in ([5, 3, 4], iter([5, 3, 4]), np.array([5, 3, 4])):
        for edit in (
            vs.Steer(rows, layers=layers),
            vs.Clamp(rows, 1.0, layers=[5, 3, 4]),
            vs.ProjectOut(rows, layers=[5, 3, 4]),
            vs.Replace(rows, layers=[5, 3, 4]),
        ):
            message = edit.to_intervention()
            assert list(message.layers.list.layers) == [3, 4, 5]
            tensor = getattr(message, message.WhichOneof("operation")).tensor
            assert vs.to_numpy(tensor).tolist() == [[2, 3], [4, 5], [0, 1]]
    one = vs.Steer(rows[0], layers=[5, 3]).to_intervention()
    assert vs.to_numpy(one.add.tensor).tolist() == [0, 1]
    with pytest.raises(ValueError, match="every block may be there once"):
        vs.Steer(rows, layers=[3, 3, 4])


@pytest.mark.parametrize(
    ("prompt", "error", "says"),
    [
        (b"abc", TypeError, "not bytes"),
        (np.array(["a", "b"]), TypeError, "item 0 of the prompt"),
        ([1, 2.5], TypeError, "item 1 of the prompt is 2.5"),
        ([{"role": "user"}], ValueError, "message 0 of the chat has no 'content'"),
        ([{"role": "user", "content": "a"}, {"content": "b"}], ValueError, "message 1"),
        (
            [{"role": "user", "content": "a", "weight": 1}],
            ValueError,
            "message 0 of the chat has the key 'weight'",
        ),
        ([{"role": "user", "content": None}], ValueError, "message 0 of the chat has no 'content'"),
        (
            [{"role": "user", "content": [{"type": "image", "url": "u"}]}],
            ValueError,
            "of type 'image'; only text",
        ),
        ([{"role": "user", "content": ["a"]}], ValueError, "of type 'str'; only text"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}],
            ValueError,
            "the key 'x'",
        ),
        ([{"role": "user", "content": "a", "name": None}], TypeError, "'name' that is no text"),
        ([{"role": "assistant", "tool_calls": None}], TypeError, "'tool_calls' that are no list"),
        (
            [{"role": "assistant", "tool_calls": [{"name": "f"}]}],
            TypeError,
            "a tool call of message 0",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}, "index": 0}]}],
            ValueError,
            "the key 'index'",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "x": 0}}]}],
            ValueError,
            "the key 'x'",
        ),
        (
            [
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": {1, 2}}}],
                }
            ],
            TypeError,
            "cannot be written as JSON",
        ),
        (
            [
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": float("nan")}}],
                }
            ],
            ValueError,
            "cannot be written as JSON",
        ),
    ],
)
def test_what_is_no_prompt_is_refused_with_its_place(prompt, error, says):
    with pytest.raises(error, match=says):
        vs.prompts.to_prompt(prompt)


def test_data_sets_of_equal_responses_are_equal_bytes():
    prompt = vs.chat_prompt(vs.chat("x"))
    names = [f"n{i}" for i in range(20)]
    sets = set()
    for order in (names, names[::-1]):
        copy = v1.Prompt()
        copy.CopyFrom(prompt)
        for name in order:
            copy.chat.template_arguments[name] = name
        sets.add(vs.to_json_lines([vs.labelled(copy, "y", True)]))
    assert len(sets) == 1


def test_directions_and_means_go_by_name():
    project = vs.ProjectOut(["vectors/a", "vectors/b"]).to_intervention().project_out
    assert list(project.vectors) == ["vectors/a", "vectors/b"]
    assert list(vs.ProjectOut("vectors/a").to_intervention().project_out.vectors) == ["vectors/a"]
    heads = vs.AblateNeurons([(0, 1)], "vectors/m", site="attention_heads").to_intervention()
    assert heads.site == v1.SITE_ATTENTION_HEADS
    assert heads.ablate_neurons.mode == v1.ABLATION_MODE_MEAN
    assert heads.ablate_neurons.reference == "vectors/m"


def test_a_site_that_exists_once_has_no_layers():
    assert not vs.Replace(np.ones(3), site="logits").to_intervention().HasField("layers")


def test_chunks_of_a_tap_become_one_array():
    def chunk(layers, positions, value):
        shape = (len(layers), len(positions), 2)
        return v1.CaptureChunk(
            tap_index=1,
            layers=layers,
            positions=positions,
            tensor=vs.from_numpy(np.full(shape, value, np.float32)),
        )

    arrays = vs.Activations(
        [chunk([0, 1], [0, 1], 1), chunk([0, 1], [2], 2), chunk([2], [0, 1, 2], 3)]
    )
    assert arrays[1].shape == (3, 3, 2)
    assert arrays[1][1, 2, 0] == 2 and arrays[1][2, 0, 0] == 3
    assert arrays.layers == {1: [0, 1, 2]} and arrays.positions == {1: [0, 1, 2]}
    assert repr(arrays) == "Activations({1: float32[3, 3, 2]})"


def test_a_data_set_line_keeps_the_empty_system_message_and_the_label():
    line = vs.to_json_lines([vs.labelled(vs.chat("q", system=""), [1, 2], False, "q1")])
    assert b'"role": "system"' in line
    assert b'"expresses": false' in line
    assert line.count(b"\n") == 1


# --- bfloat16 ------------------------------------------------------------------------------------------------------

EVERY_BFLOAT16 = v1.Tensor(
    dtype=v1.DATA_TYPE_BFLOAT16,
    shape=[256, 256],
    data=np.arange(1 << 16, dtype="<u2").tobytes(),
)


def test_every_bfloat16_comes_back_bit_for_bit():
    widened = vs.to_numpy(EVERY_BFLOAT16)
    assert widened.dtype == np.float32 and widened.shape == (256, 256)
    assert vs.from_numpy(widened, dtype="bfloat16") == EVERY_BFLOAT16
    bits = vs.to_bits(EVERY_BFLOAT16)
    assert bits.dtype == np.uint16
    np.testing.assert_array_equal(bits.ravel(), np.arange(1 << 16))


def test_rounding_to_bfloat16_is_to_nearest_even_and_keeps_nans():
    array = np.array(
        [1.0, 1.00390625, 1.01171875, 1.0039064, 3.4e38, np.inf, -np.inf, -0.0], np.float32
    )
    bits = vs.to_bits(vs.from_numpy(array, dtype="bfloat16"))
    assert [hex(b) for b in bits] == [
        "0x3f80",
        "0x3f80",  # a tie goes to the even neighbour below
        "0x3f82",  # and above
        "0x3f81",
        "0x7f80",
        "0x7f80",
        "0xff80",
        "0x8000",
    ]
    nans = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(vs.to_numpy(vs.from_numpy(nans, dtype="bfloat16"))).all()


def test_arrays_of_bfloat16_are_sent_as_they_are():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = vs.to_numpy(EVERY_BFLOAT16, widen_bfloat16=False)
    assert array.dtype == ml_dtypes.bfloat16
    assert vs.from_numpy(array) == EVERY_BFLOAT16
    assert vs.from_numpy(array.T).data != EVERY_BFLOAT16.data  # row-major after the transposition
    finite = np.isfinite(array.astype(np.float32))
    theirs = np.linspace(-300, 300, 9999, dtype=np.float32)
    assert vs.from_numpy(theirs.astype(ml_dtypes.bfloat16)) == vs.from_numpy(theirs, "bfloat16")
    assert finite.sum() == 2 * 255 * 128


def test_arrays_belong_to_the_caller():
    array = vs.to_numpy(vs.from_numpy(np.ones(3, np.float32)))
    array /= 2
    assert array.tolist() == [0.5] * 3


def test_a_scalar_and_an_empty_array_keep_their_shapes():
    for array in (np.float32(3), np.zeros((0, 4), np.float64)):
        for dtype in (None, "bfloat16"):
            assert vs.to_numpy(vs.from_numpy(array, dtype)).shape == array.shape


def test_a_foreign_dtype_and_a_damaged_tensor_are_refused():
    with pytest.raises(TypeError, match="complex"):
        vs.from_numpy(np.ones(2, complex))
    with pytest.raises(ValueError):
        vs.to_numpy(v1.Tensor(dtype=v1.DATA_TYPE_FLOAT32, shape=[3], data=bytes(8)))
    with pytest.raises(ValueError, match="dtype"):
        vs.to_numpy(v1.Tensor(shape=[2], data=bytes(8)))


# --- What people see -----------------------------------------------------------------------------------------------


def generation(text="A <b>bold</b> answer"):
    receipt = v1.InterventionReceipt(intervention_index=0, layers=[3, 4, 5, 9], positions=7)
    completion = v1.Completion(
        text=text, token_ids=[1, 2], finish_reason=v1.FINISH_REASON_LENGTH, receipts=[receipt]
    )
    return vs.Generation(v1.GenerateResponse(completions=[completion], seed=11))


def test_a_generation_shows_its_receipts():
    shown = repr(generation())
    for part in [
        "bold",
        "2 tokens",
        "length",
        "#0 touched 7 positions of layers 3-5, 9",
        "seed 11",
    ]:
        assert part in shown
    assert str(generation()) == generation().text


def test_tables_escape_what_they_show():
    hostile = "<script>alert(1)</script>"
    job = v1.Job(name="jobs/j", display_name=hostile, error=v1.JobError(message=hostile))
    job.progress.MergeFrom(v1.JobProgress(done=1, total=2, unit=hostile))
    model = v1.Model(name=hostile, family=hostile, state_message=hostile, device=hostile)
    vector = v1.Vector(name="vectors/v", display_name=hostile, model=hostile)
    tables = [
        generation(hostile)._repr_html_(),
        results.Jobs([job])._repr_html_(),
        results.Models([model])._repr_html_(),
        html.vector(vector),
    ]
    for table in tables:
        assert "<script>" not in table and "&lt;script&gt;" in table
    assert '<progress value="1" max="2">' in tables[1]


def test_a_table_of_a_vector_tells_the_true_norm_and_what_is_missing():
    bounds = v1.Interval(lower=1.25, upper=3, level=0.95)
    rows = [
        v1.VectorStatistics(
            norm=2.5,
            relative_norm=0.5,
            norm_interval=bounds,
            squared_norm_interval=v1.Interval(lower=1.5625, upper=9, level=0.95),
        ),
        v1.VectorStatistics(
            norm=2.5,
            norm_interval=bounds,  # of another kind: a record of an earlier server
            missing=[
                v1.MissingStatistic(field=field, absence=v1.STATISTIC_ABSENCE_ONE_QUERY)
                for field in ("auroc", "reliability")
            ],
        ),
    ]
    table = html.vector(v1.Vector(name="vectors/v", statistics=rows))
    assert table.count("1.25 to 3") == 1
    assert table.count("one query") == 1
    assert ">0.5</td>" in table


def test_a_running_ipython_is_told_how_to_show_messages(monkeypatch):
    shown = {}

    class Formatter:
        for_type = staticmethod(shown.__setitem__)

    class Shell:
        class display_formatter:
            formatters: ClassVar = {"text/html": Formatter}

    class IPython:
        get_ipython = staticmethod(Shell)

    monkeypatch.setitem(sys.modules, "IPython", IPython)
    vs.show_in_notebooks()
    assert "models/m" in shown[v1.Model](v1.Model(name="models/m"))
    assert "jobs/j" in shown[v1.Job](v1.Job(name="jobs/j"))
    assert "vectors/v" in shown[v1.Vector](v1.Vector(name="vectors/v"))


def test_progress_is_plain_lines_where_tqdm_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with progress.progress("answers", "", 3, "prompts") as bar:
        bar.show(3)
    assert capsys.readouterr().err == "answers: 3/3 prompts\n"


def test_what_a_job_waits_for_is_shown_at_once_and_once(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with progress.progress("jobs/j", "", 3, "responses") as bar:
        bar.show(1)
        for _ in range(3):
            bar.show(1, note="`models/m` is not loaded")
        assert capsys.readouterr().err == "jobs/j: 1/3 responses (`models/m` is not loaded)\n"
        bar.show(3)
    assert capsys.readouterr().err == "jobs/j: 3/3 responses\n"
    waiting = v1.Job(
        name="jobs/j", state=v1.JOB_STATE_QUEUED, waiting_for="`models/m` is not loaded"
    )
    assert "queued: `models/m` is not loaded" in html.jobs([waiting])


def test_no_title_shows_no_progress(capsys):
    with progress.progress(None, "default", 3) as bar:
        bar.show(3)
    assert capsys.readouterr().err == ""


def test_a_tap_of_neurons_names_its_columns():
    def chunk(layer, indices):
        return v1.CaptureChunk(
            layers=[layer],
            positions=[4],
            tensor=vs.from_numpy(np.full((1, 1, len(indices)), layer, np.float32)),
            neurons=[v1.NeuronId(layer=layer, index=i) for i in indices],
        )

    found = vs.Activations([chunk(3, [7]), chunk(5, [1, 2])])
    assert found[0].tolist() == [[[3.0, 5.0, 5.0]]]
    assert found.neurons == {0: [(3, 7), (5, 1), (5, 2)]}


def test_a_site_without_layers_takes_none():
    assert not vs.tap("logits").HasField("layers")
    assert vs.tap("mlp_neurons", dtype="bfloat16").dtype == v1.DATA_TYPE_BFLOAT16
    with pytest.raises(ValueError, match="bfloat16"):
        vs.tap(dtype="float8")


class Column:
    """What a column of pandas, an array of torch and the like have in common: no len or index that helps, but a list."""

    def __init__(self, values):
        self._values = values

    def __iter__(self):
        raise AssertionError("iterating gives scalars of the library's own")

    def tolist(self):
        return self._values


class Table:
    columns = ("prompt", "seed")

    def __iter__(self):
        return iter(self.columns)


def test_prompts_are_told_from_lists_of_prompts():
    ids = np.array([1, 2])
    for one in [
        "text",
        vs.chat("hi"),
        [1, 2],
        (1, 2),
        ids,
        list(ids),
        Column([1, 2]),
        v1.Prompt(text="x"),
    ]:
        prompts, many = to_prompts(one)
        assert prompts == [to_prompt(one)] and not many
    texts = [v1.Prompt(text="a"), v1.Prompt(text="b")]
    for several in [
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"]),
        Column(["a", "b"]),
        iter("ab"),
        texts,
    ]:
        assert to_prompts(several) == (texts, True)
    assert to_prompts(np.array([[1, 2], [3, 4]])) == ([to_prompt([1, 2]), to_prompt([3, 4])], True)
    assert to_prompts([vs.chat("hi")]) == ([to_prompt(vs.chat("hi"))], True)
    for none in [[], Column([]), np.array([])]:
        assert to_prompts(none) == ([], True)
    assert to_prompt(np.array([5, 6])).token_ids.ids == [5, 6]
    with pytest.raises(TypeError, match="not both"):
        to_prompt([{"role": "user", "content": "hi"}, 3])


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        (Column(["a", float("nan")]), "item 1 of the list: .*nan"),
        (["a", None], "item 1 of the list: .*None"),
        ([[1], [2.0]], "item 1 of the list: item 0 of the prompt is 2.0"),
        ([[True, False]], "item 0 of the prompt is True"),
        (Table(), "a table; pass one of its columns"),
        ({"input_ids": [1, 2]}, "pass its input_ids"),
        ({"role": "user", "content": "x"}, "pass a list of such messages"),
        (b"abc", "decode them"),
        (3, "the list of prompts is 3"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused_in_words(prompts, says):
    with pytest.raises(TypeError, match=says):
        to_prompts(prompts)


def test_a_string_is_one_input_and_one_response():
    assert [i.prompt.text for i in to_capture_inputs("hello")] == ["hello"]
    assert [r.text for r in to_responses("hello")] == ["hello"]
    assert [list(r.token_ids.ids) for r in to_responses([1, 2])] == [[1, 2]]
    assert [list(r.token_ids.ids) for r in to_responses(np.array([[1, 2], [3, 4]]))] == [
        [1, 2],
        [3, 4],
    ]
    assert [list(i.prompt.token_ids.ids) for i in to_capture_inputs([1, 2])] == [[1, 2]]
    assert to_capture_inputs(vs.chat("hi")) == [v1.CaptureInput(prompt=to_prompt(vs.chat("hi")))]
    pairs = to_capture_inputs([("a", "b"), "c", ("d", None)])
    assert [p.prompt.text for p in pairs] == ["a", "c", "d"]
    assert [p.HasField("response") for p in pairs] == [True, False, False]
    with pytest.raises(TypeError, match="tuple of two"):
        to_capture_inputs(("a", "b"))
    with pytest.raises(TypeError, match="item 1 of the list: a pair is"):
        to_capture_inputs(["a", ("b", "c", "d")])
    with pytest.raises(TypeError, match="not bytes"):
        to_responses(b"abc")


def test_scalars_and_columns_of_other_libraries_are_numbers():
    assert list(vs.tap("residual_post", np.int64(3)).layers.list.layers) == [3]
    assert list(
        vs.Steer("vectors/x", layers=np.argmax([0, 3, 1])).to_intervention().layers.list.layers
    ) == [1]
    assert list(
        vs.Steer("vectors/x", layers=Column([4, 2])).to_intervention().layers.list.layers
    ) == [2, 4]
    assert list(vs.tap(tokens=Column([0, -1])).tokens.positions) == [0, -1]
    neurons = (
        vs.ScaleNeurons(np.array([[1, 5], [2, 6]]), 0.0).to_intervention().scale_neurons.neurons
    )
    assert [(n.layer, n.index) for n in neurons] == [(1, 5), (2, 6)]
    assert list(
        vs.ProjectOut(np.array(["vectors/a", "vectors/b"])).to_intervention().project_out.vectors
    ) == [
        "vectors/a",
        "vectors/b",
    ]
    assert vs.labelled("a", "b", np.bool_(True), np.int64(7)).query_id == "7"
    for wrong in [1.5, True, "2", None, np.float64(2), np.array([True, False])]:
        with pytest.raises(TypeError, match="layers"):
            vs.tap("residual_post", [wrong] if np.ndim(wrong) == 0 else wrong)
    with pytest.raises(TypeError, match="expresses is 'no'"):
        vs.labelled("a", "b", "no")
    with pytest.raises(TypeError, match=r"item 0 of steer is 'v'|steer is 'vectors/x'"):
        vs.prompts.to_interventions("vectors/x")
    with pytest.raises(TypeError, match="item 1 of responses is 'b'"):
        vs.to_json_lines([vs.labelled("a", "b", True), "b"])


def test_tensors_with_gradients_or_of_bfloat16_become_arrays():
    class Tensor:  # as torch's
        dtype = "torch.bfloat16"

        def __init__(self, steps=()):
            self.steps = steps

        def detach(self):
            return Tensor((*self.steps, "detach"))

        def cpu(self):
            return Tensor((*self.steps, "cpu"))

        def float(self):
            assert self.steps == ("detach", "cpu")
            return np.array([1.5, 2.0], np.float32)

    assert given.array(Tensor()).tolist() == [1.5, 2.0]
    assert vs.to_numpy(vs.from_numpy(Tensor())).tolist() == [1.5, 2.0]
    assert vs.to_numpy(vs.Steer(Tensor()).to_intervention().add.tensor).tolist() == [1.5, 2.0]


@pytest.mark.parametrize("through", ["pickle", "copy", "deepcopy"])
def test_an_error_survives_the_way_to_another_process(through):
    copied = {
        "pickle": lambda error: pickle.loads(pickle.dumps(error)),
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
    }[through]
    told = {
        "violations": [vs.FieldViolation("n", "1 .. 64")],
        "retry_after": 2.5,
        "metadata": {"field": "n"},
        "request_id": "id",
    }
    invalid = vs.InvalidRequest("n is 65", grpc.StatusCode.INVALID_ARGUMENT, "OUT_OF_RANGE", **told)
    invalid.index = 7
    failed = v1.Job(
        name="jobs/j", error=v1.JobError(code=9, reason="WRONG_MODEL", message="other weights")
    )
    for error in [invalid, vs.Damaged("a checksum differs"), vs.JobFailed(failed, "failed")]:
        other = copied(error)
        assert type(other) is type(error) and str(other) == str(error)
        assert other.args == error.args and vars(other) == vars(error)


def test_a_client_is_not_taken_to_another_process(fake):
    for client in [vs.Client(fake.address), vs.AsyncClient(fake.address)]:
        with pytest.raises(TypeError, match="connect anew"):
            pickle.dumps(client)


def test_captures_are_decoded_once_and_scores_are_arrays():
    chunk = v1.CaptureChunk(
        layers=[0], positions=[0], tensor=vs.from_numpy(np.ones((1, 1, 2), np.float32))
    )
    found = vs.Generation(v1.GenerateResponse(completions=[v1.Completion(captures=[chunk])]))
    assert found.captures is found.captures and found.captures[0][0].shape == (1, 1, 2)
    scores = vs.Scores([v1.ContinuationScore(token_logprobs=[-1, -2], sum=-3, mean=-1.5)] * 2)
    assert scores[0].sum == -3
    assert scores.sums.tolist() == [-3, -3] and scores.means.tolist() == [-1.5, -1.5]
    assert [t.tolist() for t in scores.token_logprobs] == [[-1, -2]] * 2


def test_labels_of_several_values_come_from_columns_and_vectors_from_values():
    ones = [vs.unlabelled(f"q{i}", "yes", condition="a") for i in range(4)]
    ones[0].labels.append(v1.ValueLabel(value="power", expresses=False))
    columns = {"power": [True, None, math.nan, 0], "security": np.array([True, False, True, True])}
    made = vs.with_labels(ones, columns)
    labels = [{label.value: label.expresses for label in one.labels} for one in made]
    assert labels == [
        {"power": True, "security": True},
        {"security": False},
        {"security": True},
        {"power": False, "security": True},
    ]
    assert len(ones[0].labels) == 1
    assert not any(one.labels for one in ones[1:])
    table = pytest.importorskip("pandas").DataFrame(columns)
    assert vs.with_labels(ones, table) == made
    request = vs.extraction_request("models/m", ones, labels=table)
    assert [one.value for one in request.vectors] == ["power", "security"]
    assert list(request.responses) == made
    wanted = ["power", ("power", "a"), ("security", ["a", ""]), v1.ValueVector(value="other")]
    request = vs.extraction_request("models/m", "artifacts/ID", vectors=wanted)
    asked = [(one.value, list(one.conditions)) for one in request.vectors]
    assert asked == [("power", []), ("power", ["a"]), ("security", ["a", ""]), ("other", [])]


def test_what_is_no_label_or_no_vector_is_named():
    ones = [vs.unlabelled("q", "yes"), vs.unlabelled("q", "no")]
    with pytest.raises(ValueError, match="labels of power are 3, of 2 responses"):
        vs.with_labels(ones, {"power": [True, False, True]})
    with pytest.raises(TypeError, match="the label of power is 'yes'"):
        vs.with_labels(ones, {"power": ["yes", "no"]})
    with pytest.raises(TypeError, match="item 1 of vectors is 7"):
        vs.extraction_request("models/m", ones, vectors=["power", 7])
    with pytest.raises(TypeError, match="vectors is 'power'"):
        vs.extraction_request("models/m", ones, vectors="power")
    with pytest.raises(TypeError, match="not in an artifact"):
        vs.extraction_request("models/m", "artifacts/ID", labels={"power": [True]})
    with pytest.raises(TypeError, match="expresses is None"):
        vs.labelled("q", "yes")
