"""Models of a server for lm-evaluation-harness (the extra `valuescope[lm_eval]`), as they are or steered.

The harness finds models by names in a registry, and looks for none outside its own package: importing this module registers
"valuescope". So its command line is started through this module, which does nothing else, and takes the same arguments:

    python -m valuescope.lm_eval run --model valuescope --tasks arc_easy \\
        --model_args address=127.0.0.1:50051,model=SmolLM2-135M-Instruct,steer=vectors/ID:6@14

From Python a model is an object:

    import lm_eval, valuescope as vs
    from valuescope.lm_eval import Steered
    model = Steered(client, "models/SmolLM2-135M-Instruct", steer=vs.Steer("vectors/ID", 6.0, layers=14))
    lm_eval.simple_evaluate(model=model, tasks=["arc_easy"])

Texts are split into tokens, cut to the model's context and begun as the harness's own Hugging Face backend does it, so that numbers
can be compared. What differs is said at `Steered`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string

from . import v1
from .api import IN_FLIGHT
from .client import Client, connect
from .errors import InvalidRequest
from .lm_eval_arguments import before_stops, parse_steering, sampling_of
from .progress import progress
from .prompts import Steering, chat_prompt, to_interventions

T = TypeVar("T")
Ids = list[int]

_log = logging.getLogger(__name__)

# Requests of the harness that are worked on together: bounds what their tokens take.
_PART = 512
# Tokens of the continuations of one Score, whose answer is one message.
_MOST_SCORED = 1 << 15
_MOST_STOPS = 16
# Stands behind a message that is to be continued while the template is applied, as transformers marks it.
_END_OF_MESSAGE = "CONTINUE_FINAL_MESSAGE_TAG "


@register_model("valuescope")
class Steered(LM):  # type: ignore[misc]
    """A model of a server under the same changes of its activations in every request.

    A context and its continuation are `prompt` and `response` to token scopes: `Steer`'s default, "from_last_prompt", acts on the
    context's last token and on the continuation, tokens="all" on everything, as a hook on a block does.

    Before texts without a context stands the prefix token: the tokenizer's bos_token, or its eos_token where it has none.

    Unlike the harness's Hugging Face backend, generation takes nothing but the ends of responses from generation_config.json:
    where that has a repetition_penalty, say, give it with `--gen_kwargs`. The harness's `use_cache` knows requests by their texts
    alone: use another file for every steering.

    Args:
        client: a connection, which stays open.
        model: "models/ID".
        steer: one change or several in order, as `Client.generate` takes them.
        max_length: most tokens that are fed at once. Default the model's context_length; of texts to score one less where it is
            not lower, because the server counts the last token, too, which is not fed.
        add_bos_token: whether texts get the tokenizer's own special tokens. Default as the tokenizer does it. Never where they
            begin with the prefix token already.
        chat_template_args: further variables of the chat template, such as {"enable_thinking": False}.
        seed: of sampled generations: the i-th request of a call draws with seed + i. Default a random one for each.
        in_flight: calls under way at once.

    Raises:
        NotFound, FailedPrecondition: no such model, or it is not loaded.
        ValueError: a `max_length` that is not 2 .. context_length.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        *,
        steer: Steering = None,
        max_length: int | None = None,
        add_bos_token: bool | None = None,
        chat_template_args: Mapping[str, Any] | None = None,
        seed: int | None = None,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        super().__init__()
        self._client = client
        self._model = client.model(model)
        self._steer = to_interventions(steer)
        context = self._model.context_length
        if max_length is not None and not 2 <= max_length <= context:
            raise ValueError(f"max_length is {max_length}; allowed are 2 to {context}")
        self.max_length = max_length or context
        self._most_fed = min(self.max_length, context - 1)
        self._prefix = _prefix_of(self._model)
        self._prefix_text = (
            None if self._prefix is None else client.detokenize(model, [self._prefix])
        )
        self._add_bos_token = add_bos_token
        self._chat_template_args = chat_template_args
        self._seed = seed
        self._in_flight = in_flight

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: Mapping[str, Any] | None = None
    ) -> Steered:
        """As `create_from_arg_obj`, of "key=value,key=value"."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> Steered:
        """A model as the command line describes it.

        Args:
            arg_dict: "model" (an ID or "models/ID") and, where they are not the default ones, "address" ("HOST:PORT"), "token",
                "steer" (see `lm_eval_arguments.parse_steering`), "tokens" (its scope) and the arguments of the class.
            additional_config: batch size and device, which are the server's own affair.
        """
        given = dict(arg_dict)
        if "model" not in given:
            raise ValueError("model_args name no model; write model=ID")
        name = str(given.pop("model"))
        target = {"target": given.pop("address")} if "address" in given else {}
        scope = given.pop("tokens", "from_last_prompt")
        if "steer" in given:
            given["steer"] = parse_steering(given["steer"], scope)
        client = connect(**target, token=given.pop("token", None))
        return cls(client, name if name.startswith("models/") else f"models/{name}", **given)

    # --- What the harness asks -------------------------------------------------------------------------------------

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """For each (context, continuation) the natural log-probability of the continuation, and whether greedy decoding gives it."""
        answers: list[tuple[float, bool]] = []
        title = None if disable_tqdm else "loglikelihood"
        with progress(title, "", len(requests), "requests") as bar:
            for part in _parts(requests):
                texts = [request.args for request in part]
                found = self._score(self._split(texts))
                for text, answer in zip(texts, found, strict=True):
                    self.cache_hook.add_partial("loglikelihood", text, answer)
                answers += found
                bar.show(len(answers))
        return answers

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """For each text its natural log-probability behind the prefix token, in windows of `max_length` tokens."""
        answers: list[float] = []
        title = None if disable_tqdm else "loglikelihood_rolling"
        with progress(title, "", len(requests), "requests") as bar:
            for part in _parts(requests, self._in_flight):
                texts = [request.args[0] for request in part]
                windows = self._windows(texts)
                scores = iter(self._score(list(itertools.chain(*windows))))
                for text, its in zip(texts, windows, strict=True):
                    answer = sum(next(scores)[0] for _ in its)
                    self.cache_hook.add_partial("loglikelihood_rolling", (text,), answer)
                    answers.append(answer)
                bar.show(len(answers))
        return answers

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """For each (context, arguments) the text that follows the context, without the stop string that ended it.

        Arguments are the harness's: "until", "max_gen_toks" (default 256), "do_sample", and fields of `SamplingParams`.

        Raises:
            ValueError: an argument that the server does not know, or as many tokens to generate as the context has room for.
        """
        alike = defaultdict(list)
        for place, request in enumerate(requests):
            alike[json.dumps(request.args[1], sort_keys=True)].append(place)
        texts: dict[int, str] = {}
        title = None if disable_tqdm else "generate_until"
        with progress(title, "", len(requests), "requests") as bar:
            for places in alike.values():
                for part in _parts(places):
                    contexts = [requests[place].args[0] for place in part]
                    arguments = requests[part[0]].args[1]
                    seeds = None if self._seed is None else [self._seed + place for place in part]
                    for place, text in zip(
                        part, self._generate(contexts, arguments, seeds), strict=True
                    ):
                        texts[place] = text
                        self.cache_hook.add_partial("generate_until", requests[place].args, text)
                    bar.show(len(texts))
        return [texts[place] for place in range(len(requests))]

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the model's own template renders it. Without `add_generation_prompt` its last message is left open.

        A system message that the template refuses is left out, with a line in the log.
        """
        messages = [dict(message) for message in chat_history]
        if not add_generation_prompt:
            messages[-1]["content"] += _END_OF_MESSAGE
        try:
            text = self._rendered(messages, add_generation_prompt)
        except InvalidRequest as error:
            others = [message for message in messages if message["role"] != "system"]
            if error.reason != "CHAT_TEMPLATE_RAISED" or len(others) == len(messages):
                raise
            _log.warning("The chat template refuses a system message, which is left out: %s", error)
            text = self._rendered(others, add_generation_prompt)
        return text if add_generation_prompt else _without_end(text)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """What stands for the template in the harness's records: its digest, because the text is the server's.

        Raises:
            ValueError: a template is asked for by name; the server applies a model's default one.
        """
        if isinstance(chat_template, str):
            raise ValueError(f"no chat template can be chosen by name, such as {chat_template!r}")
        return self._model.template_digest if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        """Model and tokenizer, by which the harness tells its cached requests apart."""
        return f"{self._model.name.replace('/', '__')}__{self._model.tokenizer_digest}"

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes beside its results, with a digest of the steering."""
        digest = hashlib.sha256()
        for one in self._steer:
            digest.update(one.SerializeToString(deterministic=True))
        return {
            "model_num_parameters": self._model.num_parameters,
            "model_dtype": v1.DataType.Name(self._model.dtype),
            "model_sha": self._model.weights_digest,
            "model_interventions": len(self._steer),
            "model_interventions_sha256": digest.hexdigest() if self._steer else "",
        }

    # --- From texts to tokens --------------------------------------------------------------------------------------

    def _prefix_token(self) -> int:
        if self._prefix is None:
            raise ValueError(
                f"the tokenizer of {self._model.name} names neither a bos_token nor an eos_token, one of which stands before "
                "texts without a context"
            )
        return self._prefix

    def _gets_special_tokens(self, text: str) -> bool:
        if self._prefix_text is not None and text.startswith(self._prefix_text):
            return False
        return self._add_bos_token is not False

    def _encode(self, texts: Iterable[tuple[str, bool]]) -> dict[tuple[str, bool], Ids]:
        """The tokens of texts, each with or without special ones."""
        encoded: dict[tuple[str, bool], Ids] = {}
        for special in (True, False):
            alike = list(dict.fromkeys(text for text, its in texts if its is special))
            responses = self._client.tokenize_all(
                self._model.name, alike, add_special_tokens=special, in_flight=self._in_flight
            )
            for text, response in zip(alike, responses, strict=True):
                encoded[text, special] = list(response.token_ids)
        return encoded

    def _encode_as_texts(self, texts: Iterable[str]) -> list[Ids]:
        keys = [(text, self._gets_special_tokens(text)) for text in texts]
        encoded = self._encode(keys)
        return [encoded[key] for key in keys]

    def _split(self, texts: Iterable[tuple[str, str]]) -> list[tuple[Ids, Ids]]:
        """Tokens of contexts and of continuations.

        Space at a context's end belongs to the continuation, whose tokens are those of both together behind as many as the context
        alone has. Without a context the prefix token is one, also where the continuation begins with it.
        """
        keys = []
        for context, continuation in itertools.starmap(_with_space_moved, texts):
            for text in (context + continuation, context):
                keys.append((text, bool(context) and self._gets_special_tokens(text)))
        encoded = self._encode(keys)
        split = []
        for whole_key, context_key in zip(keys[::2], keys[1::2], strict=True):
            whole, before = encoded[whole_key], encoded[context_key]
            if before:
                split.append((before, whole[len(before) :]))
                continue
            prefix = self._prefix_token()
            split.append(([prefix], whole[1:] if whole[:1] == [prefix] else whole))
        return split

    def _windows(self, texts: Sequence[str]) -> list[list[tuple[Ids, Ids]]]:
        """Of each text, so that every token is scored once and behind as many as fit."""
        prefix = self._prefix_token()
        return [
            [
                make_disjoint_window(window)
                for window in get_rolling_token_windows(
                    token_list=ids, prefix_token=prefix, max_seq_len=self._most_fed, context_len=1
                )
            ]
            for ids in self._encode_as_texts(texts)
        ]

    # --- Calls -----------------------------------------------------------------------------------------------------

    def _score(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[tuple[float, bool]]:
        """Continuations of one context go in one call."""
        calls: list[tuple[Ids, list[Ids]]] = []
        places: list[list[int]] = []
        open_calls: dict[tuple[int, ...], int] = {}
        for place, pair in enumerate(pairs):
            context, continuation = self._cut(*pair)
            call = open_calls.get(tuple(context))
            if call is None or sum(map(len, calls[call][1])) + len(continuation) > _MOST_SCORED:
                call = open_calls[tuple(context)] = len(calls)
                calls.append((context, []))
                places.append([])
            calls[call][1].append(continuation)
            places[call].append(place)
        scores = self._client.score_all(
            self._model.name,
            calls,
            steer=self._steer,
            top_logprobs=1,
            in_flight=self._in_flight,
        )
        answers = dict(
            zip(
                itertools.chain(*places),
                map(_answer, itertools.chain(*scores)),
                strict=True,
            )
        )
        return [answers[place] for place in range(len(pairs))]

    def _cut(self, context: Ids, continuation: Ids) -> tuple[Ids, Ids]:
        """From the left, so that all but the last token can be fed."""
        if not 0 < len(continuation) <= self._most_fed:
            raise ValueError(
                f"a continuation has {len(continuation)} tokens, allowed are 1 to {self._most_fed}"
            )
        room = self._most_fed + 1 - len(continuation)
        if len(context) > room:
            _log.warning("A context of %d tokens is cut to its last %d.", len(context), room)
        return context[-room:], continuation

    def _generate(
        self, contexts: Sequence[str], arguments: Mapping[str, Any], seeds: list[int] | None
    ) -> list[str]:
        sampling, stops = sampling_of(arguments)
        room = self.max_length - sampling["max_tokens"]
        if room < 1:
            raise ValueError(
                f"max_gen_toks is {sampling['max_tokens']}; allowed are 1 to {self.max_length - 1}"
            )
        prompts = [ids[-room:] or [self._prefix_token()] for ids in self._encode_as_texts(contexts)]
        generations = self._client.generate(
            self._model.name,
            prompts,
            steer=self._steer,
            seed=seeds,
            in_flight=self._in_flight,
            stop=stops[:_MOST_STOPS],
            **sampling,
        )
        return [before_stops(generation.text, stops) for generation in generations]

    def _rendered(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
        prompt = chat_prompt(
            messages,
            template_arguments=self._chat_template_args,
            add_generation_prompt=add_generation_prompt,
        )
        return self._client.tokenize(self._model.name, prompt).rendered_text


def _parts(items: Sequence[T], size: int = _PART) -> Iterator[Sequence[T]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def _prefix_of(model: v1.Model) -> int | None:
    if model.HasField("bos_token_id"):
        return model.bos_token_id
    return model.eos_token_id if model.HasField("eos_token_id") else None


def _with_space_moved(context: str, continuation: str) -> tuple[str, str]:
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _answer(score: v1.ContinuationScore) -> tuple[float, bool]:
    likeliest = [top.token_ids[0] for top in score.top]
    return score.sum, likeliest == list(score.token_ids)


def _without_end(text: str) -> str:
    """What stands before the end of the message that is to be continued; a template may have taken the space there away."""
    before, mark, behind = text.rpartition(_END_OF_MESSAGE.strip())
    if not mark:
        raise ValueError("the chat template leaves out the end of the message to be continued")
    return before if behind.startswith(" ") else before.rstrip()


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
