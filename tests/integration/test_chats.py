"""Chats as templates see them, through a real server: equal requests are one prompt, and every key of a message arrives."""

import json
import shutil

import pytest
import valuescope as vs
from conftest import ROOT, Server
from google.protobuf import json_format, struct_pb2
from valuescope import v1

MODEL = "models/echo"
TEMPLATE = "{{ messages | tojson }}|{{ tools | tojson }}|{{ documents | tojson }}|{{ more | tojson if more is defined }}"
NESTED = {
    "more": {
        "properties": {"place": {"type": "string"}, "days": {"kind": 1, "a": 2}, "unit": None},
        "required": ["z", {"y": 1, "x": 2, "w": 3}],
        "name": "get_weather",
    }
}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "tests" / "golden" / "families" / "llama_tied", root / "echo")
    (root / "echo" / "chat_template.jinja").write_text(TEMPLATE)
    server = Server(tmp_path_factory.mktemp("store"), f"--model_root={root}", "--models=echo")
    with vs.Client(server.address, timeout=60) as client:
        client.wait_until_ready(MODEL)
        yield client
    server.stop()


def seen(client, prompt):
    """What the template finds: messages, tools, documents and further arguments, as JSON text."""
    return client.tokenize(MODEL, prompt).rendered_text.split("|")


def with_struct(arguments):
    struct = struct_pb2.Struct()
    json_format.ParseDict(arguments, struct)
    message = v1.Message(role="user", content="x")
    return v1.Prompt(chat=v1.Chat(messages=[message], template_arguments=struct))


def test_equal_requests_are_one_prompt(client):
    prompts = {client.tokenize(MODEL, with_struct(NESTED)).rendered_text for _ in range(40)}
    assert len(prompts) == 1
    assert prompts.pop().split("|")[3] == json.dumps(NESTED["more"], sort_keys=True)


def test_arguments_as_json_keep_their_order(client):
    prompt = vs.chat_prompt(vs.chat("x"), template_arguments=NESTED)
    assert seen(client, prompt)[3] == json.dumps(NESTED["more"])


def test_the_template_finds_what_a_message_has_and_nothing_else(client):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"z": 1, "a": [2.5, None]}}}  # fmt: skip
    text_call = {"type": "function", "function": {"name": "f", "arguments": '{"z": 1}'}}
    messages = [
        {"role": "system", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": [], "name": "bob"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "assistant", "tool_calls": [text_call, call]},
        {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "4", "name": "f", "tool_call_id": "c1"},
    ]
    assert json.loads(seen(client, messages)[0]) == messages
    assert seen(client, messages)[0] == json.dumps(messages)


def test_tools_and_documents_are_variables_of_the_template(client):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"z": {}, "a": {}}}}]
    documents = [{"title": "t", "text": "\u00e9"}]
    prompt = vs.chat_prompt(vs.chat("x"), tools=tools, documents=documents)
    assert seen(client, prompt)[1:3] == [json.dumps(tools), json.dumps(documents, ensure_ascii=False)]  # fmt: skip
    assert seen(client, vs.chat("x"))[1:3] == ["null", "null"]


def test_what_is_wrong_names_its_field(client):
    prompt = vs.chat_prompt(vs.chat("x"), tools=[{}])
    prompt.chat.tools[0] = "[1]"
    with pytest.raises(vs.InvalidRequest, match=r"prompt\.chat\.tools\[0\]"):
        client.tokenize(MODEL, prompt)
