"""Data sets read as Arrow tables: what pyarrow and pandas find there is what the lines say."""

import hashlib
import json
import random
import re
import subprocess

import grpc
import pandas
import pyarrow as pa
import pytest
import valuescope as vs
from conftest import BUILD, ROOT, Server, run
from test_generated_responses import MODEL, QUERIES, connected, flags, make_models
from test_limits import MIB, resident
from valuescope import v1
from valuescope.v1 import artifacts_pb2_grpc


def never_null(name, kind):
    return pa.field(name, kind, nullable=False)


def list_of(kind):
    return pa.list_(never_null("item", kind))


FUNCTION_CALL = pa.struct(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("function.name", pa.string()),
        ("function.arguments", pa.string()),
    ]
)
MESSAGE = pa.struct(
    [
        never_null("role", pa.string()),
        never_null("content", pa.string()),
        ("content_parts.parts", list_of(pa.struct([("text", pa.string())]))),
        ("empty_content", pa.string()),
        ("reasoning_content", pa.string()),
        ("name", pa.string()),
        never_null("tool_calls", list_of(FUNCTION_CALL)),
        ("tool_call_id", pa.string()),
    ]
)
VALUE_LABEL = pa.struct([never_null("value", pa.string()), ("expresses", pa.bool_())])
LABELLED_RESPONSE = pa.schema(
    [
        ("prompt.text", pa.string()),
        ("prompt.chat.messages", list_of(MESSAGE)),
        ("prompt.chat.add_generation_prompt", pa.bool_()),
        ("prompt.chat.template_arguments", pa.string()),
        ("prompt.chat.fold_system_into_user", pa.bool_()),
        ("prompt.chat.template_arguments_json", pa.string()),
        ("prompt.chat.tools", list_of(pa.string())),
        ("prompt.chat.documents", list_of(pa.string())),
        ("prompt.token_ids.ids", list_of(pa.int32())),
        ("response.text", pa.string()),
        ("response.token_ids.ids", list_of(pa.int32())),
        ("expresses", pa.bool_()),
        never_null("query_id", pa.string()),
        never_null("condition", pa.string()),
        never_null("labels", list_of(VALUE_LABEL)),
    ]
)
# What a field without presence says where its message is set and the line does not name it.
DEFAULTS = {
    "fold_system_into_user": False,
    "template_arguments_json": "",
    "query_id": "",
    "condition": "",
    "value": "",
    "role": "",
    "content": "",
    "name": "",
} | {
    name: [] for name in ("messages", "tools", "documents", "ids", "parts", "tool_calls", "labels")
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("store"), *flags(root))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with connected(server) as client:
        yield client


def uploaded(client, *lines):
    """The name of a data set of lines, texts or what becomes one as JSON."""
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
    return client.write_artifact(text.encode(), media_type="application/x-ndjson").name


def said(line, name, kind):
    """What a line says of a column, by the line alone."""
    *owners, own = name.split(".")
    for owner in owners:
        if owner not in line:
            return None
        line = line[owner]
    # A function's name has none, a message's has presence.
    optional = own == "name" and not owners
    value = line.get(own, None if optional else DEFAULTS.get(own))
    if own == "template_arguments" and value is not None:
        return json.loads(json.dumps(value))
    if value is not None and pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        return [{f.name: said(one, f.name, f.type) for f in kind.value_type} for one in value]
    return value


def drawn(draw):
    """A line of everything that a line may say, each at times."""

    def some(**fields):
        return {name: value() for name, value in fields.items() if draw.random() < 0.6}

    def text():
        return "".join(draw.choice('aé世\U0001f600 \n"\\\0') for _ in range(draw.randrange(5)))

    def many(one):
        return [one() for _ in range(draw.randrange(4))]

    def ids():
        return {"ids": many(lambda: draw.randrange(-(2**31), 2**31))} if draw.random() < 0.8 else {}

    def call():
        return some(id=text, type=text, function=lambda: some(name=text, arguments=text))

    def message():
        return some(
            role=text,
            content=text,
            content_parts=lambda: some(parts=lambda: many(lambda: some(text=text))),
            empty_content=lambda: draw.choice(["EMPTY_CONTENT_NONE", "EMPTY_CONTENT_TEXT"]),
            reasoning_content=text,
            name=text,
            tool_calls=lambda: many(call),
            tool_call_id=text,
        )

    def chat():
        return some(
            messages=lambda: many(message),
            add_generation_prompt=lambda: draw.random() < 0.5,
            template_arguments=lambda: {"z": [1.5, None, True], "a": {"b": text()}},
            fold_system_into_user=lambda: draw.random() < 0.5,
            template_arguments_json=text,
            tools=lambda: many(text),
            documents=lambda: many(text),
        )

    prompt = draw.choice([{}, {"text": text()}, {"chat": chat()}, {"token_ids": ids()}])
    response = draw.choice([{}, {"text": text()}, {"token_ids": ids()}])
    return some(
        prompt=lambda: prompt,
        response=lambda: response,
        expresses=lambda: draw.random() < 0.5,
        query_id=text,
        condition=text,
        labels=lambda: many(lambda: some(value=text, expresses=lambda: draw.random() < 0.5)),
    )


@pytest.mark.parametrize("file_format", ["arrow", "arrow_stream"])
def test_every_value_is_what_its_line_says_with_the_type_of_the_contract(client, file_format):
    draw = random.Random(5)
    lines = [drawn(draw) for _ in range(2000)]
    name = uploaded(client, *lines)
    read = client.read_table(name, file_format=file_format)
    table = read.to_arrow()
    assert table.schema.equals(LABELLED_RESPONSE)
    table.validate(full=True)
    assert table.num_rows == read.num_rows == len(lines)
    for field in LABELLED_RESPONSE:
        values = table.column(field.name).to_pylist()
        if field.name == "prompt.chat.template_arguments":
            values = [None if value is None else json.loads(value) for value in values]
        assert values == [said(line, field.name, field.type) for line in lines], field.name
    frame = read.to_pandas()
    for field in LABELLED_RESPONSE:
        assert frame.dtypes[field.name] == pandas.ArrowDtype(field.type)
    missing = ["expresses" not in line for line in lines]
    assert any(missing) and frame["expresses"].isna().tolist() == missing
    assert client.read_table(name, file_format=file_format).data == read.data


@pytest.mark.parametrize(
    ("lines", "line", "columns"),
    [
        (
            "questionnaire_item",
            {"id": "1", "text": "It is important to them.", "value": "CO", "reverse": True},
            {
                "id": "string",
                "text": "string",
                "value": "string",
                "reverse": "bool",
                "language": "string",
            },
        ),
        (
            "choice_question",
            {"id": "007", "question": "Which?", "choices": ["a", "b"], "answer": 1},
            {
                "id": "string",
                "question": "string",
                "choices": list_of(pa.string()),
                "answer": "int32",
            },
        ),
        (
            "tagged_response",
            {"id": "4", "query": "q", "response": "r", "weights": [{"value": "HE", "weight": 0.1}]},
            {
                "id": "string",
                "query": "string",
                "response": "string",
                "weights": list_of(
                    pa.struct(
                        [never_null("value", pa.string()), never_null("weight", pa.float64())]
                    )
                ),
            },
        ),
        (
            "response_pair",
            {"query": "q", "first": "1", "second": "2"},
            {"query": "string", "first": "string", "second": "string"},
        ),
    ],
)
def test_other_lines_have_the_columns_of_their_message(client, lines, line, columns):
    table = client.read_table(uploaded(client, line), lines=lines).to_arrow()
    wanted = pa.schema(
        [
            never_null(n, pa.type_for_alias(t) if isinstance(t, str) else t)
            for n, t in columns.items()
        ]
    )
    assert table.schema.equals(wanted)
    assert table.to_pylist() == [{"language": "", **line} if "text" in line else line]


def test_what_a_job_generated_is_a_table(client):
    made = client.generate_responses(
        MODEL, QUERIES, {"plain": None, "warm": vs.EvaluationCondition("w50")}, max_tokens=4
    )
    client.wait_for_job(made.name)
    artifacts = client.job(made.name).result.artifacts
    name = next(a.artifact for a in artifacts if a.role == "responses")
    lines = [json.loads(line) for line in client.read_artifact(name).splitlines()]
    frame = client.read_table(name).to_pandas()
    assert frame["condition"].tolist() == [line["condition"] for line in lines]
    ids = frame["response.token_ids.ids"].tolist()
    assert [list(one) for one in ids] == [line["response"]["token_ids"]["ids"] for line in lines]
    check_readme(client, name, lines)


def check_readme(client, name, lines):
    (text,) = re.findall(
        r"```python\n(table = client.read_table.*?)```", (ROOT / "README.md").read_text(), re.S
    )
    names = {"client": client, "name": name}
    exec(text, names)
    lengths = {}
    for line in lines:
        lengths.setdefault(line["condition"], []).append(len(line["response"]["token_ids"]["ids"]))
    wanted = {condition: sum(of) / len(of) for condition, of in lengths.items()}
    assert names["mean_tokens"].to_dict() == pytest.approx(wanted)


def test_a_line_that_is_no_row_is_told_by_its_number(client):
    good = {"query_id": "q"}
    nested = '{"prompt": {"chat": {"template_arguments": {"a": ' + "[" * 5000 + "]" * 5000 + "}}}}"
    for bad, what in [
        ('{"query_id": ', "JSON mapping"),
        ('{"query": "q"}', "JSON mapping"),
        ('{"query_id": 7.5e}', "JSON mapping"),
        ('["q"]', "JSON mapping"),
        ('{"response": {"token_ids": {"ids": [2147483648]}}}', "JSON mapping"),
        ('{"expresses": "yes"}', "neither true nor false"),
        (nested, "JSON mapping"),
        ('{"query_id": "' + "q" * MIB + '"}', "longer than 1048576 bytes"),
    ]:
        with pytest.raises(vs.InvalidRequest) as error:
            client.read_table(uploaded(client, good, "", bad, good))
        assert re.search(f"line 3 .*{what}", str(error.value)), str(error.value)[:200]
        assert error.value.reason == "BAD_DATA_SET_LINE"
        assert "qqqq" not in str(error.value)


def test_only_data_sets_are_tables_and_only_of_known_lines(client):
    other = client.write_artifact(b"{}", media_type="application/json").name
    with pytest.raises(vs.InvalidRequest) as error:
        client.read_table(other)
    assert error.value.reason == "WRONG_MEDIA_TYPE"
    with pytest.raises(vs.NotFound):
        client.read_table("artifacts/00000000-0000-4000-8000-000000000000")
    with pytest.raises(vs.InvalidRequest, match="line_type"):
        client.read_table(uploaded(client, {}), lines=77)


def test_a_reader_goes_on_at_the_offset_it_had_reached(server, client):
    name = uploaded(client, *({"query_id": str(i) * 50} for i in range(30_000)))
    whole = client.read_table(name)
    assert len(whole.data) > 3 * MIB
    with grpc.insecure_channel(server.address) as channel:
        stub = artifacts_pb2_grpc.ArtifactServiceStub(channel)
        for offset in (2 * MIB + 5, len(whole.data) + 9):
            parts = list(stub.ReadTable(v1.ReadTableRequest(artifact=name, offset=offset)))
            assert b"".join(part.chunk.data for part in parts) == whole.data[offset:]
            assert parts[-1].end == v1.TableEnd(
                rows=30_000,
                size_bytes=len(whole.data),
                sha256=hashlib.sha256(whole.data).hexdigest(),
            )


def test_the_command_line_writes_the_same_bytes(server, client, tmp_path):
    name = uploaded(client, {"id": "1", "text": "t"}, {"id": "2", "text": "u"})
    program = [BUILD / "client" / "cpp" / "valuescope", "--server", server.address]
    read = [*program, "artifacts", "read", name, tmp_path / "items.arrow"]
    run(*read, "--format", "arrow", "--lines", "questionnaire_item")
    written = (tmp_path / "items.arrow").read_bytes()
    assert written == client.read_table(name, lines="questionnaire_item").data
    assert pandas.read_feather(tmp_path / "items.arrow")["text"].tolist() == ["t", "u"]
    refused = subprocess.run(
        [*read, "--lines", "questionnaire_item"], capture_output=True, text=True
    )
    assert refused.returncode == 2 and "--format" in refused.stderr
    # Nothing is left where a line is no row.
    (tmp_path / "items.arrow").unlink()
    refused = subprocess.run([*read, "--format", "arrow"], capture_output=True, text=True)
    assert refused.returncode == 3 and "line 1" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def peak_of(server, work):
    """What the work gives back, and how far it made the server's resident memory grow, at its most."""
    process = f"/proc/{server._process.pid}"
    before = resident(server)
    with open(f"{process}/clear_refs", "w") as reset:
        reset.write("5")
    result = work()
    with open(f"{process}/status") as status:
        peak = int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) * 1024
    return result, peak - before


def test_a_large_data_set_takes_no_more_memory_than_a_batch(server, client):
    count = 200_000
    lines = b"".join(
        b'{"query_id":"q%d","expresses":true,"response":{"token_ids":{"ids":[%d,2,3]}}}\n' % (i, i)
        for i in range(count)
    )
    name = client.write_artifact(lines, media_type="application/x-ndjson").name
    table, growth = peak_of(server, lambda: client.read_table(name))
    print(f"{len(lines)} bytes of lines, {len(table.data)} of the table: {growth} more resident")
    assert table.num_rows == count
    ids = table.to_arrow().column("response.token_ids.ids").combine_chunks()
    assert ids.flatten()[::3].to_pylist() == list(range(count))
    assert growth < 16 * MIB


# Three bytes of it are a message, and then a row of the messages' columns.
MANY_MESSAGES = '{"prompt":{"chat":{"messages":[' + ",".join(["{}"] * 349_000) + "]}}}"


def test_a_line_that_becomes_a_hundred_times_its_size_is_bounded(server, client):
    name = uploaded(client, MANY_MESSAGES, MANY_MESSAGES)
    table, growth = peak_of(server, lambda: client.read_table(name))
    print(f"{len(MANY_MESSAGES)} bytes of a line: {growth} more resident")
    assert table.num_rows == 2
    assert growth < 112 * MIB  # what is held for it


def test_a_line_beyond_the_memory_of_calls_is_refused_before_it_is_parsed(root, tmp_path):
    server = Server(tmp_path, *flags(root), f"--max_message_bytes={8 * MIB}")
    with connected(server) as client:
        name = uploaded(client, MANY_MESSAGES)

        def refused():
            with pytest.raises(vs.Exhausted):
                client.read_table(name)

        _, growth = peak_of(server, refused)
        assert growth < 16 * MIB
        assert client.read_table(uploaded(client, {"query_id": "q"})).num_rows == 1
    assert server.stop() == 0
