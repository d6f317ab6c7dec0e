"""What lm-evaluation-harness asks becomes which requests: texts split into tokens, cut, grouped, and answers in their order."""

import math
import re
import types

import grpc
import harness_stand_in
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

import valuescope as vs
from valuescope import v1

harness_stand_in.install()
from valuescope.lm_eval import Steered  # noqa: E402
from valuescope.lm_eval_arguments import parse_steering  # noqa: E402

TOKENIZE, SCORE = "ModelService/Tokenize", "GenerationService/Score"
GENERATE = "GenerationService/Generate"
BOS = 1


class Words:
    """A tokenizer whose tokens are words with the space before them, and a model whose log-probabilities tell what it was given."""

    def __init__(self, fake, *, named=None, begins_texts=True, context_length=64):
        self.ids = {"<b>": BOS}
        self._begins_texts = begins_texts
        model = v1.Model(
            name="models/m",
            context_length=context_length,
            template_digest="t",
            **({"bos_token_id": BOS} if named is None else named),
        )
        fake.answers = {
            "ModelService/GetModel": lambda request, context: v1.GetModelResponse(model=model),
            "ModelService/Detokenize": lambda request, context: v1.DetokenizeResponse(text="<b>"),
            TOKENIZE: self.tokenize,
            SCORE: self.score,
            GENERATE: self.generate,
        }
        self.text = ""

    def of(self, text):
        words = re.findall(r"<b>| ?[^\s<]+|\s", text)
        return [self.ids.setdefault(word, len(self.ids) + 1) for word in words]

    def tokenize(self, request, context):
        if request.prompt.HasField("chat"):
            return self.rendered(request.prompt.chat, context)
        begins = [BOS] if self._begins_texts and request.add_special_tokens else []
        return v1.TokenizeResponse(token_ids=begins + self.of(request.prompt.text))

    def rendered(self, chat, context):
        if chat.messages[0].role == "system":
            info = error_details_pb2.ErrorInfo(reason="CHAT_TEMPLATE_RAISED")
            status = status_pb2.Status(code=3, message="no system")
            packed = any_pb2.Any()
            packed.Pack(info)
            status.details.append(packed)
            details = [("grpc-status-details-bin", status.SerializeToString())]
            context.set_trailing_metadata(details)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no system")
        text = "".join(f"[{m.role}]{m.content.strip()}[end]" for m in chat.messages)
        opened = "[assistant]" if chat.add_generation_prompt else ""
        return v1.TokenizeResponse(rendered_text=text + opened)

    def score(self, request, context):
        prompt = list(request.prompt.token_ids.ids)
        response = v1.ScoreResponse()
        for continuation in request.continuations:
            score = response.scores.add(token_ids=continuation.token_ids.ids)
            for place, one in enumerate(score.token_ids):
                score.sum += logprob(prompt + list(score.token_ids[:place]), one)
                score.top.add(token_ids=[one + one % 2])
        return response

    def generate(self, request, context):
        return v1.GenerateResponse(completions=[v1.Completion(text=self.text)])


def logprob(before, one):
    return -math.sqrt(one) - sum(before) / 64


def asked(*arguments):
    return [types.SimpleNamespace(args=one) for one in arguments]


@pytest.fixture
def client(fake):
    with vs.Client(fake.address, timeout=20) as client:
        yield client


def sent(fake):
    """Of each Score: its context and its continuations."""
    return sorted(
        (list(r.prompt.token_ids.ids), [list(c.token_ids.ids) for c in r.continuations])
        for r in fake.requests[SCORE]
    )


def test_space_at_the_end_of_a_context_belongs_to_the_continuation(fake, client):
    words = Words(fake)
    (answer,) = Steered(client, "models/m").loglikelihood(asked(("the sky is ", "blue")))
    context, continuation = [BOS, *words.of("the sky is")], words.of(" blue")
    assert sent(fake) == [(context, [continuation])]
    assert answer == (logprob(context, *continuation), continuation[0] % 2 == 0)


def test_choices_of_one_context_share_a_call_and_answers_keep_their_order(fake, client):
    words = Words(fake)
    pairs = [(c, a) for a in (" x", " y z", " z") for c in ("one", "two <b>", "<b> three")]
    model = Steered(client, "models/m")
    found = model.loglikelihood(asked(*pairs))
    expected = []
    for context, continuation in pairs:
        # A text that begins with the prefix token gets no other.
        before = ([] if context.startswith("<b>") else [BOS]) + words.of(context)
        total = 0.0
        for one in words.of(continuation):
            total += logprob(before, one)
            before.append(one)
        expected.append((total, all(one % 2 == 0 for one in words.of(continuation))))
    assert found == expected
    assert fake.count(SCORE) == 3
    assert all(r.top_logprobs == 1 for r in fake.requests[SCORE])


def test_a_continuation_is_what_follows_the_contexts_own_tokens(fake, client):
    """Also where the two together are other tokens than each alone."""
    words = Words(fake)
    Steered(client, "models/m").loglikelihood(asked(("the sk", "y is")))
    assert sent(fake) == [([BOS, *words.of("the sk")], [words.of("the sky is")[2:]])]


def test_without_a_context_the_prefix_token_stands_before_the_text(fake, client):
    words = Words(fake)
    Steered(client, "models/m").loglikelihood(asked(("", "sky"), ("", "<b>sea")))
    assert sent(fake) == [([BOS], [words.of("sky"), words.of("sea")])]


@pytest.mark.parametrize(
    ("named", "prefix"),
    [({"bos_token_id": 0, "eos_token_id": 7}, 0), ({"eos_token_id": 7}, 7), ({}, None)],
)
def test_the_prefix_token_is_the_tokenizers_first_or_last_and_not_guessed(
    fake, client, named, prefix
):
    words = Words(fake, named=named, begins_texts=False)
    model = Steered(client, "models/m")
    if prefix is None:
        with pytest.raises(ValueError, match="neither a bos_token nor an eos_token"):
            model.loglikelihood(asked(("", "sky")))
        return
    model.loglikelihood(asked(("", "sky")))
    assert sent(fake) == [([prefix], [words.of("sky")])]


def test_contexts_are_cut_from_the_left(fake, client):
    words = Words(fake, context_length=6)
    model = Steered(client, "models/m")
    model.loglikelihood(asked(("a b c d e f g", " h i")))
    assert sent(fake) == [(words.of("a b c d e f g")[-4:], [words.of(" h i")])]
    with pytest.raises(ValueError, match="has 6 tokens, allowed are 1 to 5"):
        model.loglikelihood(asked(("a", " b c d e f g")))
    with pytest.raises(ValueError, match="has 0 tokens"):
        model.loglikelihood(asked(("a", "")))
    for length in (1, 7):
        with pytest.raises(ValueError, match=f"max_length is {length}; allowed are 2 to 6"):
            Steered(client, "models/m", max_length=length)
    Steered(client, "models/m", max_length=3).loglikelihood(asked(("a b c d e", " i")))
    assert list(fake.requests[SCORE][-1].prompt.token_ids.ids) == words.of("a b c d e")[-3:]


def test_every_token_of_a_text_is_scored_once_behind_as_many_as_fit(fake, client):
    words = Words(fake, context_length=4)
    texts = ["a b c d e f g h", "b"]
    found = Steered(client, "models/m").loglikelihood_rolling(asked(*((text,) for text in texts)))
    # The tokenizer begins texts with the same token; the first of each window has the one before it as its context.
    ids = [BOS, *words.of(texts[0])]
    expected = [([BOS], ids[:3]), ([ids[2]], ids[3:6]), ([ids[5]], ids[6:9])]
    short = [BOS, *words.of(texts[1])]
    assert sent(fake) == sorted(
        [([BOS], [ids[:3], short]), *((context, [part]) for context, part in expected[1:])]
    )
    assert found[1] == logprob([BOS], BOS) + logprob([BOS, BOS], short[1])


def test_generations_end_at_every_stop_string_and_keep_their_order(fake, client):
    words = Words(fake, context_length=20)
    words.text = "one two\n three"
    stops = [f"s{i}" for i in range(20)] + ["\n", ""]
    long = " ".join("abcdefghijklmnop")
    requests = asked(
        (long, {"until": stops, "max_gen_toks": 12}),
        ("x", {"until": " two", "do_sample": True, "temperature": 0.5, "top_p": 0.9}),
    )
    model = Steered(client, "models/m", steer=vs.Steer("vectors/v", 2.0), seed=5)
    with pytest.raises(ValueError, match="max_gen_toks is 256; allowed are 1 to 19"):
        model.generate_until(requests)
    requests[1].args[1]["max_gen_toks"] = 4
    fake.requests.clear()
    assert model.generate_until(requests) == ["one two", "one"]
    first, second = fake.requests[GENERATE]
    assert list(first.prompt.token_ids.ids) == words.of(long)[-8:]
    assert (first.sampling.temperature, first.sampling.max_tokens) == (0, 12)
    assert list(first.sampling.stop) == stops[:16]
    assert (second.sampling.temperature, second.sampling.seed) == (0.5, 6)
    assert second.interventions[0].add.vector == "vectors/v"
    with pytest.raises(ValueError, match="'num_beams'"):
        model.generate_until(asked(("x", {"max_gen_toks": 4, "num_beams": 2})))


def test_every_answer_goes_to_the_harness_cache(fake, client):
    Words(fake).text = "yes"
    model = Steered(client, "models/m")
    kept = []
    model.cache_hook = types.SimpleNamespace(add_partial=lambda *one: kept.append(one))
    arguments = {"until": [], "max_gen_toks": 2}
    (scored,) = model.loglikelihood(asked(("a", " b")))
    (rolled,) = model.loglikelihood_rolling(asked(("a b",)))
    model.generate_until(asked(("a", arguments)))
    assert kept == [
        ("loglikelihood", ("a", " b"), scored),
        ("loglikelihood_rolling", ("a b",), rolled),
        ("generate_until", ("a", arguments), "yes"),
    ]


def test_chats_are_rendered_by_the_server(fake, client):
    Words(fake)
    model = Steered(client, "models/m", chat_template_args={"thinking": False})
    chat = vs.chat("hello", system="be kind")
    # The template refuses the system message.
    assert model.apply_chat_template(chat) == "[user]hello[end][assistant]"
    assert fake.requests[TOKENIZE][-1].prompt.chat.template_arguments_json == '{"thinking": false}'
    opened = [*vs.chat("hello"), {"role": "assistant", "content": "well "}]
    rendered = model.apply_chat_template(opened, add_generation_prompt=False)
    assert rendered == "[user]hello[end][assistant]well"
    assert opened[-1]["content"] == "well "
    assert model.chat_template(True) == "t"
    with pytest.raises(ValueError, match="by name"):
        model.chat_template("tool_use")


def test_model_args_name_a_server_a_model_and_a_steering(fake, tmp_path):
    Words(fake)
    arguments = f"address={fake.address},model=m,steer=vectors/a:6@14+vectors/b:-.5@2-4,tokens=all"
    fake.answers["ModelService/ListModels"] = lambda request, context: v1.ListModelsResponse()
    model = Steered.create_from_arg_string(arguments, {"batch_size": 1, "device": None})
    model.loglikelihood(asked(("a", " b")))
    (request,) = fake.requests[SCORE]
    one, other = request.interventions
    assert request.model == "models/m"
    assert (one.add.vector, one.add.coefficient, list(one.layers.list.layers)) == (
        "vectors/a", 6, [14],
    )  # fmt: skip
    assert (other.add.coefficient, list(other.layers.list.layers)) == (-0.5, [2, 3, 4])
    assert other.tokens.kind == v1.TOKEN_KIND_ALL
    file = tmp_path / "edits.json"
    file.write_text('[{"layers": {"all": true}, "add": {"vector": "vectors/c"}}]')
    (from_file,) = parse_steering(str(file))
    assert from_file.layers.all and from_file.add.vector == "vectors/c"
    with pytest.raises(ValueError, match="vectors/ID:COEFFICIENT@LAYERS"):
        parse_steering("vectors/a@14")
    with pytest.raises(ValueError, match="name no model"):
        Steered.create_from_arg_string("address=a")


def test_results_name_the_steering_by_its_digest(fake, client):
    Words(fake)
    digests = {
        Steered(client, "models/m", steer=steer).get_model_info()["model_interventions_sha256"]
        for steer in (None, vs.Steer("vectors/v"), vs.Steer("vectors/v", 2.0))
    }
    assert len(digests) == 3 and "" in digests
