"""Prompts, responses, layers, scopes and steering as people type them, turned into the contract's messages."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
from google.protobuf import json_format

from . import given, v1
from .generated import Generated
from .tensors import data_type, from_numpy

Prompt: TypeAlias = (
    "str | Sequence[Mapping[str, Any]] | Sequence[int] | npt.NDArray[np.integer] | v1.Prompt"
)
"""Plain text, a chat (messages as `chat_prompt` takes them), or token ids."""
Response: TypeAlias = "str | Sequence[int] | npt.NDArray[np.integer] | v1.Response"
"""Text or token ids."""
Layers: TypeAlias = "str | int | Iterable[int] | v1.Layers"
"""\"all\", one block, or several (0-based)."""
Tokens: TypeAlias = "str | Iterable[int] | v1.TokenSelection"
"""A scope's name or positions."""
Steering: TypeAlias = "Edit | v1.Intervention | Sequence[Edit | v1.Intervention] | None"
"""One change of activations, or several in order."""

_T = TypeVar("_T")


def _names(enum: Any, prefix: str) -> dict[str, Any]:
    """The values of an enum of the contract by their names as people type them: lower case, without the prefix, and without
    the one that says that nothing was said."""
    return {
        name.removeprefix(prefix).lower(): number
        for name, number in enum.items()
        if name != f"{prefix}UNSPECIFIED"
    }


SCOPES = {
    "all": v1.TOKEN_KIND_ALL,
    "prompt": v1.TOKEN_KIND_PROMPT,
    "response": v1.TOKEN_KIND_RESPONSE,
    "generated": v1.TOKEN_KIND_GENERATED,
    "last_prompt": v1.TOKEN_KIND_LAST_PROMPT,
    "last": v1.TOKEN_KIND_LAST,
    "from_last_prompt": v1.TOKEN_KIND_FROM_LAST_PROMPT,
}
SITES: dict[str, v1.Site] = _names(v1.Site, "SITE_")
REDUCTIONS: dict[str, v1.Reduction] = _names(v1.Reduction, "REDUCTION_")

NEURON_CLASSES: dict[str, v1.NeuronClass] = _names(v1.NeuronClass, "NEURON_CLASS_")
NEURON_TESTS: dict[str, v1.NeuronTest] = _names(v1.NeuronTest, "NEURON_TEST_")
METHODS: dict[str, v1.ExtractionMethod] = _names(v1.ExtractionMethod, "EXTRACTION_METHOD_")
POOLINGS: dict[str, v1.Pooling] = _names(v1.Pooling, "POOLING_")


def chat(user: str, system: str | None = None) -> list[dict[str, str]]:
    """A conversation of one user message. `system=""` is an explicitly empty system message, which is not the same as none:
    several templates insert a default system prompt when there is none."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    return [*messages, {"role": "user", "content": user}]


def to_prompt(prompt: Prompt) -> v1.Prompt:
    """A `Prompt` from a string (plain text), a list of messages (a chat, see `chat_prompt`), or a sequence of token ids."""
    if isinstance(prompt, v1.Prompt):
        return prompt
    if isinstance(prompt, str):
        return v1.Prompt(text=prompt)
    if isinstance(prompt, (bytes, bytearray)):
        raise TypeError("a prompt is text, a chat or token ids, not bytes; decode them")
    messages, ids = [], []
    for place, part in enumerate(_parts(prompt)):
        if isinstance(part, Mapping):
            messages.append(_message(place, part))
        else:
            ids.append(_token_id(place, part))
    if messages and ids:
        raise TypeError("a prompt is a chat or token ids, not both in one list")
    if messages:
        return v1.Prompt(chat=v1.Chat(messages=messages))
    return v1.Prompt(token_ids=v1.TokenIds(ids=ids))


def _parts(prompt: Any) -> list[Any]:
    """Messages or token ids."""
    if isinstance(prompt, Mapping):
        hint = "its input_ids" if "input_ids" in prompt else "a list of such messages"
        raise TypeError(f"a prompt is text, a chat or token ids, not a mapping; pass {hint}")
    try:
        return given.items(prompt, "the prompt")
    except TypeError as error:
        raise TypeError(f"{error}: a prompt is text, a chat or token ids") from None


def chat_prompt(
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    documents: Sequence[Mapping[str, Any]] = (),
    template_arguments: Mapping[str, Any] | None = None,
    add_generation_prompt: bool = True,
    fold_system_into_user: bool = False,
) -> v1.Prompt:
    """A chat with what the model's template takes beyond its messages, as transformers' apply_chat_template does.

    Args:
        messages: dicts of "role", "content" (text, a list of {"type": "text", "text": ...}, or None beside "tool_calls") and,
            where the template reads them, "reasoning_content", "name", "tool_calls" (dicts of "id", "type" and "function" with
            "name" and "arguments") and "tool_call_id". The template finds their keys in this order, and those of the arguments
            in the order of the dict. "content" may be left out beside "tool_calls".
        tools: JSON schemas of functions that the model may call.
        documents: documents to answer from, mostly of "title" and "text".
        template_arguments: further variables of the template, such as {"enable_thinking": False}; dicts keep their order.
        add_generation_prompt: whether the template opens the assistant's turn at the end.
        fold_system_into_user: puts a system message at the head of the first user turn, for templates that reject it.

    Raises ValueError or TypeError, naming the message and key, for what the contract has no place for.
    """
    chat = v1.Chat(
        messages=[_message(place, part) for place, part in enumerate(messages)],
        tools=[_json(tool, f"tools[{place}]") for place, tool in enumerate(tools)],
        documents=[_json(text, f"documents[{place}]") for place, text in enumerate(documents)],
        add_generation_prompt=add_generation_prompt,
        fold_system_into_user=fold_system_into_user,
    )
    if template_arguments:
        chat.template_arguments_json = _json(template_arguments, "template_arguments")
    return v1.Prompt(chat=chat)


_MESSAGE_TEXTS = ("reasoning_content", "name", "tool_call_id")


def _json(value: Any, what: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what} cannot be written as JSON: {error}") from None


def _refuse_other_keys(what: str, mapping: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in mapping:
        if key not in known:
            names = ", ".join(map(repr, known))
            raise ValueError(f"{what} has the key {key!r}, which cannot be sent; known are {names}")


def _message(place: int, part: Mapping[str, Any]) -> v1.Message:
    what = f"message {place} of the chat"
    _refuse_other_keys(what, part, ("role", "content", *_MESSAGE_TEXTS, "tool_calls"))
    if not isinstance(part.get("role"), str):
        raise ValueError(f"{what} has no 'role' that is text")
    message = v1.Message(role=part["role"])
    for key in _MESSAGE_TEXTS:
        if key in part:
            if not isinstance(part[key], str):
                raise TypeError(f"{what} has a {key!r} that is no text: leave the key out")
            setattr(message, key, part[key])
    if "tool_calls" in part:
        if not isinstance(part["tool_calls"], (list, tuple)) or not part["tool_calls"]:
            raise TypeError(f"{what} has 'tool_calls' that are no list of some: leave the key out")
        message.tool_calls.extend(_tool_call(what, call) for call in part["tool_calls"])
    _fill_content(what, message, part)
    return message


def _fill_content(what: str, message: v1.Message, part: Mapping[str, Any]) -> None:
    content = part.get("content")
    if isinstance(content, str):
        message.content = content
        if not content and message.tool_calls:
            message.empty_content = v1.EMPTY_CONTENT_TEXT
    elif isinstance(content, (list, tuple)):
        message.content_parts.SetInParent()
        message.content_parts.parts.extend(_content_part(what, item) for item in content)
    elif content is None and (message.tool_calls or message.HasField("reasoning_content")):
        absent = "content" not in part
        message.empty_content = v1.EMPTY_CONTENT_ABSENT if absent else v1.EMPTY_CONTENT_NONE
    else:
        raise ValueError(f"{what} has no 'content' that is text")


def _content_part(what: str, part: Any) -> v1.ContentPart:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        raise ValueError(f"{what} has a content part of type {kind!r}; only text can be sent")
    _refuse_other_keys(f"a content part of {what}", part, ("type", "text"))
    if not isinstance(part.get("text"), str):
        raise TypeError(f"{what} has a content part without 'text'")
    return v1.ContentPart(text=part["text"])


def _tool_call(what: str, call: Any) -> v1.ToolCall:
    what = f"a tool call of {what}"
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        raise TypeError(f"{what} is no dict with a 'function' that is one")
    function = call["function"]
    if not isinstance(function.get("name"), str):
        raise TypeError(f"the function of {what} has no 'name' that is text")
    _refuse_other_keys(what, call, ("id", "type", "function"))
    _refuse_other_keys(f"the function of {what}", function, ("name", "arguments"))
    result = v1.ToolCall(function=v1.FunctionCall(name=function["name"]))
    for key in ("id", "type"):
        if key in call:
            setattr(result, key, call[key])
    if "arguments" in function:
        result.function.arguments = _json(function["arguments"], f"arguments of {what}")
    return result


def _token_id(place: int, part: Any) -> int:
    try:
        return given.whole(part, "")
    except TypeError:
        raise TypeError(
            f"item {place} of the prompt is {given.shown(part)}; a prompt is text, a chat or token ids"
        ) from None


def to_prompts(prompts: Any) -> tuple[list[v1.Prompt], bool]:
    """The prompts that are given, and whether it is a list of them (also of one) instead of one prompt.

    A string, token ids and one conversation are one prompt. A list, a column or an array of these, and a generator, are several.

    Raises:
        TypeError: one of them is none of these; the error says which.
    """
    if isinstance(prompts, (str, bytes, bytearray, Mapping, v1.Prompt)):
        return [to_prompt(cast(Prompt, prompts))], False
    parts = given.items(prompts, "the list of prompts")
    if parts and (isinstance(parts[0], Mapping) or _is_token_id(parts[0])):
        return [to_prompt(parts)], False
    return [_in_list(to_prompt, place, part) for place, part in enumerate(parts)], True


def _is_token_id(part: Any) -> bool:
    number = given.plain(part)
    return isinstance(number, int) and not isinstance(number, bool)


def _in_list(convert: Callable[[Any], _T], place: int, one: Any) -> _T:
    """The error of one item says which it is."""
    try:
        return convert(one)
    except (TypeError, ValueError) as error:
        raise type(error)(f"item {place} of the list: {error}") from None


def to_capture_inputs(inputs: Any) -> list[v1.CaptureInput]:
    """Inputs of a capture: one prompt, or a list of prompts and of pairs (prompt, response).

    Raises:
        TypeError: an item that is neither, with its place; a tuple of two, which could be two prompts or one pair.
    """
    if isinstance(inputs, tuple) and len(inputs) == 2 and not _is_token_id(inputs[0]):
        raise TypeError("inputs is a tuple of two: write [(prompt, response)], or [prompt, prompt]")
    if isinstance(inputs, (str, bytes, bytearray, Mapping, v1.Prompt)):
        inputs = [inputs]
    parts = given.items(inputs, "inputs")
    if parts and (isinstance(parts[0], Mapping) or _is_token_id(parts[0])):
        parts = [parts]
    return [_in_list(_capture_input, place, part) for place, part in enumerate(parts)]


def _capture_input(one: Any) -> v1.CaptureInput:
    if not isinstance(one, tuple):
        return v1.CaptureInput(prompt=to_prompt(one))
    if len(one) != 2:
        raise TypeError(f"a pair is (prompt, response), not {len(one)} parts")
    prompt, response = one
    return v1.CaptureInput(
        prompt=to_prompt(prompt), response=None if response is None else to_response(response)
    )


def to_responses(responses: Any) -> list[v1.Response]:
    """One response (a string, token ids), or a list of them.

    Raises:
        TypeError: an item that is neither, with its place.
    """
    if isinstance(responses, (str, bytes, bytearray, v1.Response)):
        return [to_response(cast(Response, responses))]
    parts = given.items(responses, "the list of responses")
    if parts and _is_token_id(parts[0]):
        return [to_response(parts)]
    return [_in_list(to_response, place, part) for place, part in enumerate(parts)]


def to_taps(taps: v1.Tap | Iterable[v1.Tap]) -> list[v1.Tap]:
    """One tap made by `tap`, or several."""
    return [taps] if isinstance(taps, v1.Tap) else given.items(taps, "taps")


def to_response(response: Response) -> v1.Response:
    """A `Response` from a string or a sequence of token ids. Prefer the ids of generated responses."""
    if isinstance(response, v1.Response):
        return response
    if isinstance(response, str):
        return v1.Response(text=response)
    if isinstance(response, (bytes, bytearray)):
        raise TypeError("a response is text or token ids, not bytes; decode them")
    return v1.Response(token_ids=v1.TokenIds(ids=given.wholes(response, "the response")))


def to_layers(layers: Layers) -> v1.Layers:
    """`Layers` from "all", one block, a `range`, or any sequence of blocks (0-based)."""
    if isinstance(layers, v1.Layers):
        return layers
    if isinstance(layers, str):
        if layers != "all":
            raise ValueError(f'layers is {layers!r}; write "all", an int or a sequence of ints')
        return v1.Layers(all=True)
    return v1.Layers(list=v1.LayerList(layers=given.wholes(layers, "layers")))


def to_tokens(tokens: Tokens) -> v1.TokenSelection:
    """A `TokenSelection` from a name ("all", "prompt", "response", "generated", "last_prompt", "last", "from_last_prompt")
    or a sequence of positions (negative ones count from the end)."""
    if isinstance(tokens, v1.TokenSelection):
        return tokens
    if isinstance(tokens, str):
        return v1.TokenSelection(kind=_named(SCOPES, tokens, "tokens"))
    positions = given.wholes(tokens, "tokens")
    return v1.TokenSelection(kind=v1.TOKEN_KIND_POSITIONS, positions=positions)


def to_site(site: str | v1.Site) -> v1.Site:
    """A `Site` from its lower-case name, such as "residual_post" or "mlp_neurons"."""
    return _named(SITES, site, "site") if isinstance(site, str) else site


_ONCE_SITES = (v1.SITE_EMBEDDING, v1.SITE_FINAL_NORM, v1.SITE_LOGITS)


class Edit:
    """A change of activations: what every one has. `Steer`, `ProjectOut`, `Clamp`, `ScaleNeurons`, `AblateNeurons` and
    `Replace` say what is done.

    Attributes:
        layers: blocks, as `to_layers` takes them; ignored at sites that exist once a model. The rows of an array are in
            their order.
        tokens: scope, as `to_tokens` takes it; "from_last_prompt" steers a whole answer.
        site: lower-case name of a site.
        preserve_norm: rescale the result to the norm of what was there before.
    """

    layers: Layers
    tokens: Tokens
    site: str | v1.Site
    preserve_norm: bool

    def __post_init__(self) -> None:
        if isinstance(self.layers, (str, v1.Layers)):
            return
        layers = given.wholes(self.layers, "layers")
        if len(set(layers)) < len(layers):
            raise ValueError(f"layers is {layers}; every block may be there once")
        object.__setattr__(self, "layers", layers)  # once: an iterator is read only once

    def to_intervention(self) -> v1.Intervention:
        """The contract's message. Raises ValueError for a name that does not exist."""
        site = to_site(self.site)
        intervention = v1.Intervention(
            site=site, tokens=to_tokens(self.tokens), preserve_norm=self.preserve_norm
        )
        if site not in _ONCE_SITES:
            intervention.layers.CopyFrom(
                to_layers(sorted(self.layers) if isinstance(self.layers, list) else self.layers)
            )
        self._fill(intervention)
        return intervention

    def _fill(self, intervention: v1.Intervention) -> None:
        raise NotImplementedError

    def _rows(self, array: npt.ArrayLike) -> v1.Tensor:
        """An array of one row for all layers, or of one a layer in the order of `layers`, as the contract has them: in
        ascending order of layer."""
        rows = given.array(array, np.float32)
        if isinstance(self.layers, list) and rows.ndim > 1 and len(rows) == len(self.layers):
            rows = rows[np.argsort(self.layers)]
        return from_numpy(rows)


def _fill_source(
    edit: Edit,
    operation: v1.AddVector | v1.Clamp,
    vector: str | npt.ArrayLike,
    source_layer: int | None,
) -> None:
    if isinstance(vector, str):
        operation.vector = vector
    else:
        operation.tensor.CopyFrom(edit._rows(vector))
    if source_layer is not None:
        operation.source_layer = source_layer


@dataclasses.dataclass(frozen=True)
class Steer(Edit):
    """Adds `coefficient` times a vector to the residual stream (or another site) at some layers.

    Attributes:
        vector: "vectors/ID", or an array [width] or [layers, width], sent as float32.
        coefficient: multiple that is added; 0 is a valid baseline. Default 1.
        layers: blocks, as `to_layers` takes them.
        tokens: scope, as `to_tokens` takes it; "from_last_prompt" steers a whole answer.
        site: lower-case name of a site.
        source_layer: use this layer's row of a stored vector at every layer.
        preserve_norm: rescale the result to the norm of what was there before.
    """

    vector: str | npt.ArrayLike
    coefficient: float = 1.0
    layers: Layers = "all"
    tokens: Tokens = "from_last_prompt"
    site: str | v1.Site = "residual_post"
    source_layer: int | None = None
    preserve_norm: bool = False

    def _fill(self, intervention: v1.Intervention) -> None:
        intervention.add.coefficient = self.coefficient
        _fill_source(self, intervention.add, self.vector, self.source_layer)


@dataclasses.dataclass(frozen=True)
class ProjectOut(Edit):
    """Removes or damps the component along the span of one or several directions, whatever their lengths.

    Attributes:
        directions: "vectors/ID" or several such names, or an array [width], [layers, width] (one direction a layer) or
            [layers, directions, width].
        strength: part of the projection that is removed, 0 to 1.
        source_layer: use this layer's rows of stored vectors at every layer.
    """

    directions: str | Sequence[str] | npt.ArrayLike
    strength: float = 1.0
    layers: Layers = "all"
    tokens: Tokens = "from_last_prompt"
    site: str | v1.Site = "residual_post"
    source_layer: int | None = None
    preserve_norm: bool = False

    def _fill(self, intervention: v1.Intervention) -> None:
        project = intervention.project_out
        project.strength = self.strength
        names = _names_or_none(self.directions)
        if names is not None:
            project.vectors.extend(names)
        else:
            project.tensor.CopyFrom(self._rows(self.directions))
        if self.source_layer is not None:
            project.source_layer = self.source_layer


def _names_or_none(directions: Any) -> list[str] | None:
    """Names of vectors, whatever holds them; None for numbers."""
    if isinstance(directions, str):
        return [directions]
    listed = given.plain(directions)
    is_names = isinstance(listed, (list, tuple)) and listed and isinstance(listed[0], str)
    return given.strings(listed, "directions") if is_names else None


@dataclasses.dataclass(frozen=True)
class Clamp(Edit):
    """Sets the projection on a vector's direction: afterwards <x, v / |v|> is `value`.

    Attributes:
        vector: "vectors/ID", or an array [width] or [layers, width].
        value: the projection, in units of the activation.
        source_layer: use this layer's row of a stored vector at every layer.
    """

    vector: str | npt.ArrayLike
    value: float
    layers: Layers = "all"
    tokens: Tokens = "from_last_prompt"
    site: str | v1.Site = "residual_post"
    source_layer: int | None = None
    preserve_norm: bool = False

    def _fill(self, intervention: v1.Intervention) -> None:
        intervention.clamp.value = self.value
        _fill_source(self, intervention.clamp, self.vector, self.source_layer)


Neurons: TypeAlias = "str | Iterable[tuple[int, int]]"
"""\"neuronSets/ID\", or pairs (layer, index)."""


def to_neurons(neurons: Any) -> list[v1.NeuronId]:
    """Pairs (layer, index), or an array [neurons, 2] of them."""
    pairs = []
    for place, pair in enumerate(given.items(neurons, "neurons")):
        numbers = given.wholes(pair, f"item {place} of neurons")
        if len(numbers) != 2:
            raise TypeError(
                f"item {place} of neurons is {given.shown(pair)}; it must be (layer, index)"
            )
        pairs.append(v1.NeuronId(layer=numbers[0], index=numbers[1]))
    return pairs


def to_set_filters(sets: Any, top_per_layer: int = 0) -> list[v1.NeuronSetFilter]:
    """Filters from "neuronSets/ID", "neuronSets/ID=shared" (one class) or filters, one or several.

    Args:
        sets: of one model.
        top_per_layer: instead of the members, of those that are no filters yet.
    """
    alone = isinstance(sets, (str, v1.NeuronSetFilter))
    filters = []
    for place, one in enumerate([sets] if alone else given.items(sets, "sets")):
        if isinstance(one, v1.NeuronSetFilter):
            filters.append(one)
            continue
        if not isinstance(one, str):
            raise TypeError(f"item {place} of sets is {given.shown(one)}; it must be a string")
        name, _, neuron_class = one.partition("=")
        made = v1.NeuronSetFilter(neuron_set=name, top_per_layer=top_per_layer)
        if neuron_class:
            setattr(made, "class", _named(NEURON_CLASSES, neuron_class, "the class"))
        filters.append(made)
    return filters


def _fill_neurons(
    message: v1.ScaleNeurons | v1.AblateNeurons | v1.TestNeuronsRequest | v1.NeuronRanking,
    neurons: Neurons,
    neuron_class: str | None,
) -> None:
    if isinstance(neurons, str):
        message.neuron_set = neurons
    else:
        message.neurons.extend(to_neurons(neurons))
    if neuron_class is not None:
        setattr(message, "class", _named(NEURON_CLASSES, neuron_class, "neuron_class"))


@dataclasses.dataclass(frozen=True)
class ScaleNeurons(Edit):
    """Multiplies neurons' activations; at site "attention_heads" whole heads.

    Attributes:
        neurons: "neuronSets/ID", or pairs (layer, index); those outside `layers` are left alone.
        factor: multiplier; 0 zeroes.
        neuron_class: only members of this class of a neuron set, such as "shared".
    """

    neurons: Neurons
    factor: float
    layers: Layers = "all"
    tokens: Tokens = "from_last_prompt"
    site: str | v1.Site = "mlp_neurons"
    neuron_class: str | None = None
    preserve_norm: bool = False

    def _fill(self, intervention: v1.Intervention) -> None:
        intervention.scale_neurons.factor = self.factor
        _fill_neurons(intervention.scale_neurons, self.neurons, self.neuron_class)


@dataclasses.dataclass(frozen=True)
class AblateNeurons(Edit):
    """Puts 0, or the mean of a reference, in the place of neurons' activations; at site "attention_heads" of whole heads.

    Attributes:
        neurons: "neuronSets/ID", or pairs (layer, index); those outside `layers` are left alone.
        reference: None for 0, or the "vectors/ID" of this site whose rows are the means.
        neuron_class: only members of this class of a neuron set, such as "shared".
    """

    neurons: Neurons
    reference: str | None = None
    layers: Layers = "all"
    tokens: Tokens = "from_last_prompt"
    site: str | v1.Site = "mlp_neurons"
    neuron_class: str | None = None
    preserve_norm: bool = False

    def _fill(self, intervention: v1.Intervention) -> None:
        intervention.ablate_neurons.mode = v1.ABLATION_MODE_ZERO
        if self.reference is not None:
            intervention.ablate_neurons.mode = v1.ABLATION_MODE_MEAN
            intervention.ablate_neurons.reference = self.reference
        _fill_neurons(intervention.ablate_neurons, self.neurons, self.neuron_class)


@dataclasses.dataclass(frozen=True)
class Replace(Edit):
    """Overwrites activations (activation patching).

    Attributes:
        activations: an array [width] for all, [layers, width], or [layers, positions, width] where `tokens` are positions.
    """

    activations: npt.ArrayLike
    layers: Layers = "all"
    tokens: Tokens = "from_last_prompt"
    site: str | v1.Site = "residual_post"
    preserve_norm: bool = False

    def _fill(self, intervention: v1.Intervention) -> None:
        intervention.replace.tensor.CopyFrom(self._rows(self.activations))


def to_interventions(steer: Steering) -> list[v1.Intervention]:
    """Interventions from None, one `Edit` (such as `Steer`) or `Intervention`, or a sequence of them."""
    if steer is None:
        return []
    if isinstance(steer, (Edit, v1.Intervention)):
        steer = [steer]
    interventions = []
    for place, one in enumerate(given.items(steer, "steer")):
        if not isinstance(one, (Edit, v1.Intervention)):
            raise TypeError(
                f"item {place} of steer is {given.shown(one)}; make it with Steer, Clamp, ..."
            )
        interventions.append(one.to_intervention() if isinstance(one, Edit) else one)
    return interventions


def tap(
    site: str | v1.Site = "residual_post",
    layers: Layers | None = "all",
    tokens: Tokens = "all",
    reduction: str = "none",
    *,
    dtype: str = "float32",
    neurons: Iterable[tuple[int, int]] = (),
) -> v1.Tap:
    """A read-out of activations: where, of which tokens, reduced how.

    Args:
        site: lower-case name, such as "residual_post" (width hidden_size) or "mlp_neurons" (width intermediate_size).
        layers: blocks; ignored at sites that exist once a model ("embedding", "final_norm", "logits").
        tokens: scope, as `to_tokens` takes it.
        reduction: over the tokens, on the server: "none", "mean", "sum", "max" or "last".
        dtype: of the values on the wire, such as "float32" or "bfloat16".
        neurons: pairs (layer, index); only at "mlp_neurons": reads these alone.
    """
    site = to_site(site)
    if site in _ONCE_SITES:
        layers = None
    return v1.Tap(
        site=site,
        layers=None if layers is None else to_layers(layers),
        tokens=to_tokens(tokens),
        reduction=_named(REDUCTIONS, reduction, "reduction"),
        dtype=data_type(dtype),
        neurons=to_neurons(neurons),
    )


def labelled(
    prompt: Prompt,
    response: Response,
    expresses: bool | None = None,
    query_id: str | int = "",
    *,
    condition: str = "",
    labels: Mapping[str, Any] | None = None,
) -> v1.LabelledResponse:
    """One labelled response of a data set.

    Args:
        prompt: what the response answers.
        response: the response; prefer the ids of generated ones.
        expresses: whether it expresses the value; may be left out where `labels` are given.
        query_id: query that it answers, a name or a number; responses of one query stay together in split halves and
            intervals.
        condition: name of the condition under which it was made.
        labels: value -> whether it expresses that one, of several values; None, NaN and NA are no label.
    """
    if expresses is None and labels is None:
        raise TypeError("expresses is None; it must be True or False, unless there are labels")
    message = v1.LabelledResponse(
        prompt=to_prompt(prompt),
        response=to_response(response),
        query_id=query_id if isinstance(query_id, str) else str(given.whole(query_id, "query_id")),
        condition=condition,
    )
    if expresses is not None:
        if not isinstance(given.plain(expresses), (bool, int)):
            raise TypeError(f"expresses is {given.shown(expresses)}; it must be True or False")
        message.expresses = bool(expresses)
    for value, label in (labels or {}).items():
        _add_label(message, value, label)
    return message


def _add_label(message: v1.LabelledResponse, value: str, label: Any) -> None:
    """Adds the label of a value, if there is one."""
    plain = given.plain(label)
    if plain is None or type(plain).__name__ == "NAType" or plain != plain:
        return
    if plain not in (0, 1):
        raise TypeError(
            f"the label of {value} is {given.shown(label)}; it must be True, False or None"
        )
    message.labels.append(v1.ValueLabel(value=value, expresses=bool(plain)))


def with_labels(
    responses: v1.LabelledResponse | Iterable[v1.LabelledResponse], labels: Mapping[str, Any]
) -> list[v1.LabelledResponse]:
    """The responses with labels of several values, in place of those that they have of the same values, as copies.

    Args:
        responses: made by `labelled` or `unlabelled`.
        labels: value -> labels, one a response, in order; a dictionary of lists or arrays, or a pandas table with a column a
            value. None, NaN and NA are no label.

    Raises:
        TypeError, ValueError: what is no label, with its place, or a column of another length.
    """
    labelled_ones = []
    for one in to_data_set(responses):
        copy = v1.LabelledResponse()
        copy.CopyFrom(one)
        labelled_ones.append(copy)
    for value, column in labels.items():
        listed = given.items(column, f"labels of {value}")
        if len(listed) != len(labelled_ones):
            raise ValueError(
                f"labels of {value} are {len(listed)}, of {len(labelled_ones)} responses"
            )
        for message, label in zip(labelled_ones, listed, strict=True):
            others = [one for one in message.labels if one.value != value]
            del message.labels[:]
            message.labels.extend(others)
            _add_label(message, value, label)
    return labelled_ones


# One of several vectors: a value, or a pair of a value and the condition or conditions whose responses alone count.
ValueVectors = Iterable[str | tuple[str, str | Sequence[str]] | v1.ValueVector]


def to_value_vectors(vectors: ValueVectors) -> list[v1.ValueVector]:
    """What `extract_vectors` makes of one pass, from values, pairs (value, condition or conditions), or messages."""
    made = []
    for place, one in enumerate(given.items(vectors, "vectors")):
        if isinstance(one, v1.ValueVector):
            made.append(one)
        elif isinstance(one, str):
            made.append(v1.ValueVector(value=one))
        elif isinstance(one, Sequence) and len(one) == 2 and isinstance(one[0], str):
            conditions = given.strings(one[1], f"conditions of {one[0]}")
            made.append(v1.ValueVector(value=one[0], conditions=conditions))
        else:
            raise TypeError(
                f"item {place} of vectors is {given.shown(one)}; it must be a value or a pair (value, condition)"
            )
    return made


def unlabelled(
    prompt: Prompt,
    response: Response,
    *,
    condition: str = "",
    query_id: str | int = "",
) -> v1.LabelledResponse:
    """One response without a label, to be judged or measured.

    Args:
        prompt: what the response answers.
        response: the response; prefer the ids of generated ones.
        condition: name of the condition under which it was made; measures are by condition.
        query_id: query that it answers, a name or a number.
    """
    message = labelled(prompt, response, False, query_id)
    message.ClearField("expresses")
    message.condition = condition
    return message


# Responses made by `labelled` or `unlabelled`, or the name of an artifact that holds them.
Responses = str | v1.LabelledResponse | Iterable[v1.LabelledResponse]


def fill_data_set(
    request: v1.ExtractVectorsRequest
    | v1.AttributeNeuronsRequest
    | v1.TestNeuronsRequest
    | v1.TopContextsRequest
    | v1.MeasureTextsRequest
    | v1.JudgeResponsesRequest,
    responses: Any,
) -> None:
    """Puts labelled responses, one or several, or the name of an artifact that holds them, into a request."""
    if isinstance(responses, str):
        request.artifact = responses
    else:
        request.responses.extend(to_data_set(responses))


def to_data_set(responses: Any) -> list[v1.LabelledResponse]:
    """Labelled responses, one or several.

    Raises:
        TypeError: an item that `labelled` did not make, with its place.
    """
    listed = (
        [responses]
        if isinstance(responses, v1.LabelledResponse)
        else given.items(responses, "responses")
    )
    for place, one in enumerate(listed):
        if not isinstance(one, v1.LabelledResponse):
            raise TypeError(
                f"item {place} of responses is {given.shown(one)}; make it with labelled"
            )
    return listed


def to_json_lines(responses: Iterable[v1.LabelledResponse]) -> bytes:
    """A data set as the server reads it: one labelled response a line, UTF-8. Equal responses give equal bytes."""
    lines = [
        json_format.MessageToJson(r, indent=None, preserving_proto_field_name=True, sort_keys=True)
        for r in to_data_set(responses)
    ]
    return ("\n".join(lines) + "\n").encode()


def extraction_request(
    model: str,
    responses: str | v1.LabelledResponse | Iterable[v1.LabelledResponse] | None = None,
    *,
    generated: Generated | v1.GeneratedResponses | None = None,
    vectors: ValueVectors | None = None,
    labels: Mapping[str, Any] | None = None,
    layers: Layers = "all",
    site: str | v1.Site = "residual_post",
    method: str | v1.ExtractionMethod | None = None,
    pooling: str | v1.Pooling | None = None,
    **fields: Any,
) -> v1.ExtractVectorsRequest:
    """The request of `Client.extract_vectors`, and of a job that does the same.

    Args:
        model: "models/ID".
        responses: made by `labelled`, or the name of an artifact that holds them.
        generated: how the server generates and labels responses itself, in place of `responses`.
        vectors: several vectors of one pass over the responses, in place of the one that `expresses` divides: values, or pairs
            (value, condition or conditions), such as ["stimulation", ("security", "intrinsic")]; default one for each value of
            `labels`.
        labels: value -> labels of the responses, one each, as `with_labels` takes them; default those that they have.
        layers: rows of the vector; ignored at sites that exist once a model ("embedding", "final_norm", "logits").
        site: where activations are read.
        method: what makes the vector: "difference_in_means" (the server's default), "pca" of the differences of pairs,
            "pca_centered", or "linear_probe" (with inverse_regularization, its C).
        pooling: which tokens count: "response_mean" (the server's default), "token_mean", "last_token" of a response, or
            "last_prompt_token".
        fields: further fields of `ExtractVectorsRequest`, such as inverse_regularization, bootstrap_samples, judge.
    """
    request = v1.ExtractVectorsRequest(model=model, site=to_site(site), **fields)
    if method is not None:
        request.method = _named(METHODS, method, "method") if isinstance(method, str) else method
    if pooling is not None:
        request.pooling = (
            _named(POOLINGS, pooling, "pooling") if isinstance(pooling, str) else pooling
        )
    if request.site not in _ONCE_SITES:
        request.layers.CopyFrom(to_layers(layers))
    if (responses is None) == (generated is None):
        raise TypeError("an extraction takes responses or generated, one of the two")
    if labels is not None:
        if isinstance(responses, str) or responses is None:
            raise TypeError("labels go with responses that are not in an artifact")
        responses = with_labels(responses, labels)
        vectors = list(labels) if vectors is None else vectors
    if vectors is not None:
        request.vectors.extend(to_value_vectors(vectors))
    if generated is None:
        fill_data_set(request, responses)
    else:
        message = generated.to_message() if isinstance(generated, Generated) else generated
        request.generated.CopyFrom(message)
    return request


def attribution_request(
    model: str,
    responses: str | Sequence[v1.LabelledResponse],
    vector: str = "",
    *,
    layers: Layers = "all",
    **fields: Any,
) -> v1.AttributeNeuronsRequest:
    """The request of `Client.attribute_neurons`, and of a job that does the same.

    Args:
        model: "models/ID".
        responses: a list made by `labelled`, or the name of an artifact that holds one.
        vector: "vectors/ID" that contributions are measured along; of direct_contribution alone.
        layers: blocks whose neurons are scored.
        fields: further fields of `AttributeNeuronsRequest`; a method other than direct_contribution is one of them,
            such as causal_ablation=v1.CausalAblation() with its target=v1.AttributionTarget(...).
    """
    request = v1.AttributeNeuronsRequest(
        model=model, vector=vector, layers=to_layers(layers), **fields
    )
    if request.WhichOneof("method") is None:
        request.direct_contribution.SetInParent()
    fill_data_set(request, responses)
    return request


def neuron_test_request(
    model: str,
    responses: str | Sequence[v1.LabelledResponse],
    neurons: Neurons | Mapping[str, Neurons],
    target: v1.AttributionTarget,
    *,
    test: str | v1.NeuronTest = "remove",
    neuron_class: str | None = None,
    layers: Layers = "all",
    tokens: Tokens | None = None,
    **fields: Any,
) -> v1.TestNeuronsRequest:
    """The request of `Client.test_neurons`, and of a job that does the same.

    Args:
        model: "models/ID".
        responses: made by `labelled`, or the name of an artifact that holds them; the target is measured on the expressing
            ones.
        neurons: the ranking, best first: pairs (layer, index), or "neuronSets/ID", whose neurons are ranked by |score|. Up to
            16 rankings by their labels are tested over the same responses.
        target: what is measured.
        test: "remove", "keep_only", or "scale" with factor.
        neuron_class: only the neurons of this class, such as "shared", of every set.
        layers: blocks whose neurons may be ranked, drawn at random and, by keep_only, ablated.
        tokens: where neurons are changed; None: at all but the sequence's first.
        fields: further fields of `TestNeuronsRequest`, such as sizes, factor, mode, reference, random_sets, seed.
    """
    request = v1.TestNeuronsRequest(
        model=model,
        target=target,
        test=_named(NEURON_TESTS, test, "test") if isinstance(test, str) else test,
        layers=to_layers(layers),
        tokens=None if tokens is None else to_tokens(tokens),
        **fields,
    )
    if isinstance(neurons, Mapping):
        for label, ranked in neurons.items():
            _fill_neurons(request.rankings.add(label=label), ranked, neuron_class)
    else:
        _fill_neurons(request, neurons, neuron_class)
    fill_data_set(request, responses)
    return request


def _named(table: Mapping[str, _T], name: str, what: str) -> _T:
    if name not in table:
        raise ValueError(f"{what} is {name!r}; choose one of {', '.join(table)}")
    return table[name]
