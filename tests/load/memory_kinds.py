"""The largest request of each kind that a server of one of the small golden models may be sent: a table that has a row for
every RPC that is served.
"""

import dataclasses
import hashlib
import importlib
import json
import pathlib
import pkgutil
import struct
from collections.abc import Callable

import grpc
from valuescope import v1
from valuescope.crc32c import crc32c

ID, OTHER = "llama_tied", "qwen2"
MODEL = f"models/{ID}"
LAYERS, HIDDEN, INTERMEDIATE, CONTEXT = 3, 36, 38, 128
MIB = 1 << 20
AT_ONCE, PAGE = 64, 1000
MESSAGE, REQUESTS, CAPTURES, TABLES = 8 * MIB, 64 * MIB, 64 * MIB, 4 * MIB
ALLOWED = 8 * MESSAGE + REQUESTS + CAPTURES + TABLES
FLAGS = [
    "--max_batch_rows=16",
    "--kv_cache_bytes=2MiB",
    f"--max_message_bytes={MESSAGE}",
    f"--request_memory_bytes={REQUESTS}",
    f"--capture_memory_bytes={CAPTURES}",
    f"--intervention_memory_bytes={TABLES}",
]
# The contract's, by the type of what they are asked.
RPCS = {
    rpc.input_type.full_name: rpc
    for module in pkgutil.iter_modules(v1.__path__)
    if module.name.endswith("_pb2")
    for service in importlib.import_module(
        f"valuescope.v1.{module.name}"
    ).DESCRIPTOR.services_by_name.values()
    for rpc in service.methods
}


@dataclasses.dataclass(frozen=True)
class Call:
    """A request, or the parts of an upload, as bytes: it is made before it is sent."""

    rpc: object  # its descriptor
    request: bytes | list[bytes]

    @classmethod
    def of(cls, *parts, more=b""):
        """`more` is part of the only message."""
        rpc = RPCS[parts[0].DESCRIPTOR.full_name]
        sent = [part.SerializeToString() + more for part in parts]
        return cls(rpc, sent if rpc.client_streaming else sent[0])

    def begin(self, channel, seconds):
        """Its answer, or an iterator of its answers, as bytes."""
        sides = (self.rpc.client_streaming, self.rpc.server_streaming)
        shape = "_".join("stream" if streams else "unary" for streams in sides)
        path = f"/{self.rpc.containing_service.full_name}/{self.rpc.name}"
        request = iter(self.request) if self.rpc.client_streaming else self.request
        return getattr(channel, shape)(path)(request, timeout=seconds)


@dataclasses.dataclass(frozen=True)
class Stored:
    """Names of what requests read, and where a server has it."""

    directory: pathlib.Path
    vectors: list[str]
    neuron_set: str
    probabilities: list[str]  # neuron sets of how often neurons are active
    artifact: str
    job: str  # not finished


@dataclasses.dataclass(frozen=True)
class Kind:
    """Requests of one size, and how one of them that comes alone is answered."""

    call: Callable[[int], Call]  # by its number
    different: int = 1  # numbers that have a request of their own; those above repeat them
    read: bool = True  # by the client: otherwise the first message of the answer and no other
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""  # of a refusal; empty: any

    def calls(self):
        return [self.call(number) for number in range(self.different)]


# --- Parts of requests ---

ALL = v1.Layers(all=True)


def ids(numbers):
    return v1.TokenIds(ids=numbers)


def prompt(seed, length=12):
    return v1.Prompt(token_ids=ids([3 + (7 * seed + i) % 90 for i in range(length)]))


def tensor(shape, seed):
    count = 1
    for extent in shape:
        count *= extent
    # Whatever the seed, directions that are not one another's.
    numbers = [((seed + 1) * (i * i % 101) + i) % 17 - 8 + 0.5 for i in range(count)]
    return v1.Tensor(
        dtype=v1.DATA_TYPE_FLOAT32, shape=shape, data=struct.pack(f"<{count}f", *numbers)
    )


SCALED = v1.Intervention(
    site=v1.SITE_MLP_NEURONS,
    layers=ALL,
    scale_neurons=v1.ScaleNeurons(
        factor=1.5,
        neurons=[
            v1.NeuronId(layer=layer, index=index)
            for layer in range(LAYERS)
            for index in range(INTERMEDIATE)
        ],
    ),
)


def steering(seed):
    """64 interventions of 64 directions each on every layer, but for those that a message of this size has no room for."""
    directions = v1.ProjectOut(tensor=tensor([LAYERS, 24, HIDDEN], seed))
    return [v1.Intervention(layers=ALL, project_out=directions)] * 20 + [SCALED] * 44


def named(vector, count=64):
    """A small message that declares gigabytes for a large model: every intervention names one vector 64 times."""
    operation = v1.ProjectOut(vectors=[vector] * 64)
    return [v1.Intervention(layers=ALL, project_out=operation)] * count


def taps(reduction=v1.REDUCTION_NONE):
    sites = (
        v1.SITE_RESIDUAL_POST,
        v1.SITE_MLP_NEURONS,
        v1.SITE_ATTENTION_HEADS,
        v1.SITE_MLP_OUTPUT,
    )
    tokens = v1.TokenSelection(kind=v1.TOKEN_KIND_ALL)
    return [
        v1.Tap(site=sites[i % 4], layers=ALL, tokens=tokens, reduction=reduction) for i in range(16)
    ]


def labelled(seed, count):
    return [
        v1.LabelledResponse(
            prompt=prompt(seed + i),
            response=v1.Response(token_ids=ids([5 + i % 80] * 40)),
            expresses=i % 2 == 1,
            query_id=str(i // 2),
        )
        for i in range(count)
    ]


def padded(message, field):
    """`message` just below the limit, by what its text or bytes `field` (a path) has."""
    *path, name = field.split(".")
    owner = message
    for each in path:
        owner = getattr(owner, each)
    filling = type(getattr(owner, name))
    setattr(owner, name, filling().ljust(MESSAGE - 64 - message.ByteSize()))
    return message


# --- Requests ---

STOPS = ["\x00" * 4000 + str(i) for i in range(16)]


def worst_generate(seed, request=v1.GenerateRequest, **more):
    sampling = v1.SamplingParams(max_tokens=CONTEXT - 12, ignore_eos=True, seed=seed, stop=STOPS)
    return request(model=MODEL, prompt=prompt(seed), sampling=sampling, n=64, logprobs=20, **more)


def worst_stream(seed):
    changes = {"taps": taps(), "interventions": steering(seed)}
    return worst_generate(seed, v1.StreamGenerateRequest, **changes)


def worst_score(seed):
    continuation = v1.Response(token_ids=ids([5] * 60))
    return v1.ScoreRequest(
        model=MODEL,
        prompt=prompt(seed),
        continuations=[continuation] * 400,
        top_logprobs=4,
        interventions=steering(seed)[:10],
    )


def worst_capture(seed):
    inputs = [v1.CaptureInput(prompt=prompt(seed + i, CONTEXT)) for i in range(1500)]
    return v1.CaptureRequest(model=MODEL, inputs=inputs, taps=taps())


def worst_extract(seed):
    return v1.ExtractVectorsRequest(
        model=MODEL,
        responses=labelled(seed, 200),
        site=v1.SITE_MLP_NEURONS,
        interventions=steering(seed)[:10],
        bootstrap_samples=10,
    )


def attribution(model, vector, responses):
    return v1.AttributeNeuronsRequest(
        model=model,
        responses=responses,
        vector=vector,
        direct_contribution=v1.DirectContribution(),
    )


def job(model, vector, count):
    """Of `count` labelled responses, which come with it."""
    work = attribution(model, vector, labelled(0, 100) * (count // 100))
    return v1.CreateJobRequest(spec=v1.JobSpec(attribute_neurons=work))


# Responses of the largest job that is given back with them, of a large one, and of one that fills a message.
KEPT_RESPONSES, MANY_RESPONSES, MOST_RESPONSES = 12_500, 20_000, 90_000


def worst_vector(seed):
    return v1.Vector(
        model=MODEL,
        site=v1.SITE_MLP_NEURONS,
        layers=range(LAYERS),
        data=tensor([LAYERS, INTERMEDIATE], seed),
        display_name=str(seed) * 128,
    )


def vector_of_empty_statistics(_):
    """Two bytes each in the message, and more than a hundred once it is read."""
    # What a message says of a field again is added to it.
    some = v1.CreateVectorRequest(vector=v1.Vector(statistics=[v1.VectorStatistics()] * 1000))
    block = some.SerializeToString()
    count = (MESSAGE - 65536) // len(block)
    return Call.of(v1.CreateVectorRequest(vector=worst_vector(0)), more=block * count)


def filled_vector(field):
    return padded(v1.CreateVectorRequest(vector=worst_vector(0)), f"vector.{field}")


def decomposition(seed, vectors):
    """The pairs have names that no other decomposition has, and so have the four vectors that each leaves behind."""
    pairs = [
        v1.VectorPair(
            value=f"{seed} {i} ".ljust(128, "v"),
            intrinsic=vectors[i % 8],
            prompted=vectors[(i + 1 + i // 8 % 7) % 8],
        )
        for i in range(64)
    ]
    return v1.DecomposeVectorsRequest(pairs=pairs)


def circle(vectors):
    values = [
        *("self-direction", "stimulation", "hedonism", "achievement", "power"),
        *("security", "conformity", "tradition", "benevolence", "universalism"),
    ]
    pairs = [
        v1.VectorPair(value=value, intrinsic=vectors[i % 8], prompted=vectors[(i + 3) % 8])
        for i, value in enumerate(values)
    ]
    options = v1.CircumplexOptions(null_samples=100)
    return v1.DecomposeVectorsRequest(pairs=pairs, circumplex=options, store=False)


def comparison(vectors):
    """Every token of the small vocabulary, twice."""
    return v1.CompareVectorsRequest(vectors=[vectors[i % 8] for i in range(64)], top_tokens=100)


def classification(seed, vectors):
    axes = v1.ConditionVectors(intrinsic=vectors[1], prompted=vectors[2])
    return v1.ClassifyNeuronsRequest(model=MODEL, vectors=axes, top_percent=100, top_k=200 + seed)


def probabilities(seed):
    return v1.AttributeNeuronsRequest(
        model=MODEL,
        responses=labelled(seed, 20),
        activation_probability_difference=v1.ActivationProbabilityDifference(),
    )


def of_neurons(stored):
    one = v1.NeuronSetFilter(neuron_set=stored.neuron_set)
    every = [
        v1.NeuronId(layer=layer, index=index)
        for layer in range(LAYERS)
        for index in range(INTERMEDIATE)
    ]

    def tested(seed):
        return v1.TestNeuronsRequest(
            model=MODEL,
            responses=labelled(seed, 200),
            neurons=every,
            sizes=[1, 4, len(every)],
            random_sets=2,
            target=v1.AttributionTarget(continuation_logprob=v1.ContinuationLogprobTarget()),
        )

    def contexts(seed):
        return v1.TopContextsRequest(model=MODEL, responses=labelled(seed, 1000), neurons=every)

    return {
        "TestNeurons": each(tested, 4),
        "CompareNeuronSets": same(v1.CompareNeuronSetsRequest(sets=[one] * 64)),
        "ScoreSelectivity": same(v1.ScoreSelectivityRequest(neuron_sets=stored.probabilities)),
        "TopContexts": each(contexts, 4),
    }


def evaluations():
    """The small vocabulary tells no letters apart, so what reads labels is refused once all of it was looked at."""
    unreadable = {"code": grpc.StatusCode.FAILED_PRECONDITION, "reason": "UNREADABLE_LABELS"}

    def questionnaire(seed):
        return v1.AskQuestionnaireRequest(
            model=MODEL,
            items=[v1.QuestionnaireItem(text=f"x {seed}")] * 10_000,
            options=[v1.AnswerOption(label=label, score=i) for i, label in enumerate("abcd")],
            template="{item} {options}",
        )

    def choices(seed):
        return v1.AnswerChoicesRequest(
            model=MODEL,
            questions=[v1.ChoiceQuestion(question=f"x {seed}", choices=["a", "b c"])] * 1000,
            reading=v1.CHOICE_READING_CONTINUATIONS,
            template="{question}",
        )

    def tagged(seed):
        one = v1.TaggedResponse(
            query=f"x {seed}", response="z a", weights=[v1.ValueWeight(value="p", weight=1)]
        )
        return v1.ScoreTaggedResponsesRequest(model=MODEL, responses=[one] * 1000)

    def judged(seed):
        judge = v1.Judge(word_list=v1.WordListJudge(words=[f"x{seed}"]))
        return v1.JudgeResponsesRequest(model=MODEL, responses=labelled(seed, 1000), judge=judge)

    def compared(seed):
        pairs = [v1.ResponsePair(query=f"x {seed}", first="y", second="z")] * 10_000
        return v1.CompareResponsesRequest(model=MODEL, pairs=pairs, rubric="{query} {a} {b}")

    def measured(seed):
        return v1.MeasureTextsRequest(model=MODEL, responses=labelled(seed, 1000), perplexity=True)

    return {
        "AskQuestionnaire": each(questionnaire, 4, **unreadable),
        "AnswerChoices": each(choices, 4),
        "ScoreTaggedResponses": each(tagged, 4),
        "JudgeResponses": each(judged, 4),
        "CompareResponses": each(compared, 4, **unreadable),
        "MeasureTexts": each(measured, 4),
    }


MOST_TEXT, MOST_IDS, MOST_MESSAGES = MIB, 1 << 18, 4096


def text(size):
    return v1.TokenizeRequest(model=MODEL, prompt=v1.Prompt(text="x " * (size // 2)))


def chat(size):
    """Half of its text is a tool's."""
    tool = '{"a": [' + "0," * (size // 4) + "0]}"
    content = "x " * (size // MOST_MESSAGES // 4)
    messages = [v1.Message(role="user", content=content)] * MOST_MESSAGES
    return v1.TokenizeRequest(
        model=MODEL, prompt=v1.Prompt(chat=v1.Chat(messages=messages, tools=[tool]))
    )


def tokens():
    return v1.TokenizeRequest(model=MODEL, prompt=v1.Prompt(token_ids=ids([7] * MOST_IDS)))


CHUNK = bytes(range(256)) * (MIB // 256)


def upload(chunks, data=CHUNK, **header):
    """The messages of a file of `chunks` times `data`."""
    digest = hashlib.sha256(data * chunks).hexdigest()
    whole = v1.WriteArtifactHeader(size_bytes=chunks * len(data), sha256=digest, **header)
    parts = [
        v1.ArtifactChunk(offset=i * len(data), data=data, crc32c=crc32c(data))
        for i in range(chunks)
    ]
    return [v1.WriteArtifactRequest(header=whole)] + [
        v1.WriteArtifactRequest(chunk=part) for part in parts
    ]


def vector_upload(content, **header):
    """The messages of a file of vectors."""
    digest = hashlib.sha256(content).hexdigest()
    whole = v1.ImportVectorsHeader(
        **{"model": MODEL, "size_bytes": len(content), "sha256": digest, **header}
    )
    parts = [content[offset : offset + MIB] for offset in range(0, len(content), MIB)]
    return [
        v1.ImportVectorsRequest(header=whole),
        *(v1.ImportVectorsRequest(data=part) for part in parts),
    ]


def safetensors(header, data=b""):
    text = header.encode().ljust(-(-len(header) // 8) * 8)
    return struct.pack("<Q", len(text)) + text + data


def vector_file(seed):
    """As many vectors as a file may have, of others, so that each is stored with a record of its own."""
    rows = [tensor([LAYERS, HIDDEN], 64 * seed + i).data for i in range(64)]
    size = len(rows[0])
    entries = {
        str(i): {
            "dtype": "F32",
            "shape": [LAYERS, HIDDEN],
            "data_offsets": [i * size, (i + 1) * size],
        }
        for i in range(64)
    }
    return Call.of(*vector_upload(safetensors(json.dumps(entries), b"".join(rows))))


# MiB: with what reading it takes it fits the memory of all calls.
LARGE_FILE = 6


def nonsense():
    """JSON that becomes many times its length once it is parsed."""
    return safetensors('{"__metadata__": [' + "{}," * 100_000 + "{}]}")


def only_names(request):
    """Whether requests of this type are names, numbers and switches, of which a name alone can be large."""
    fields = request.fields
    return any(field.type == field.TYPE_STRING for field in fields) and all(
        field.message_type is None and not field.is_repeated for field in fields
    )


# In order, so that a number always means the same.
ONLY_NAMES = [
    rpc.input_type
    for _, rpc in sorted(RPCS.items())
    if only_names(rpc.input_type) and not rpc.client_streaming
]


def longest_name(number):
    request = ONLY_NAMES[number]
    text = next(field for field in request.fields if field.type == field.TYPE_STRING)
    return padded(getattr(v1, request.name)(), text.name)


# --- The table ---


def each(request, different, **how):
    return Kind(lambda number: Call.of(request(number)), different, **how)


def same(*parts, **how):
    return Kind(lambda _: Call.of(*parts), **how)


def page(request):
    return same(request(page_size=PAGE))


REFUSED = {"code": grpc.StatusCode.INVALID_ARGUMENT}


def never_fits(reason):
    return {"code": grpc.StatusCode.RESOURCE_EXHAUSTED, "reason": reason}


def computing(vectors):
    vector = vectors[1]

    def steered(seed):
        return worst_generate(seed, interventions=steering(seed))

    def captured(seed):
        return worst_generate(seed, taps=taps(v1.REDUCTION_MEAN)[:12])

    def overloaded(seed):
        return worst_generate(seed, interventions=named(vector))

    def attributed(seed):
        return attribution(MODEL, vector, labelled(seed, 1000))

    return {
        "Generate": each(steered, AT_ONCE),
        "Generate with captures": each(captured, AT_ONCE),
        "Generate that names a vector 4,096 times": each(
            overloaded, AT_ONCE, **never_fits("INTERVENTIONS_TOO_LARGE")
        ),
        "StreamGenerate": each(worst_stream, AT_ONCE),
        "StreamGenerate that is not read": each(worst_stream, AT_ONCE, read=False),
        "Score": each(worst_score, AT_ONCE),
        "Capture": each(worst_capture, 4),
        "Capture that is not read": each(worst_capture, 4, read=False),
        "ExtractVectors": each(worst_extract, 16),
        "AttributeNeurons": each(attributed, 4),
        "ClassifyNeurons": each(lambda seed: classification(seed, vectors), AT_ONCE),
        "DecomposeVectors": each(lambda seed: decomposition(seed, vectors), 4),
        "DecomposeVectors with the circumplex": same(circle(vectors)),
        "CompareVectors": same(comparison(vectors)),
        "Tokenize": same(text(MOST_TEXT // 4)),
        "Tokenize of the longest text": same(text(MOST_TEXT), **never_fits("REQUEST_TOO_LARGE")),
        "Tokenize of a chat": same(chat(MOST_TEXT // 8)),
        "Tokenize of the longest chat": same(
            chat(MOST_TEXT * 7 // 8), **never_fits("REQUEST_TOO_LARGE")
        ),
        "Tokenize of ids": same(tokens()),
        "Detokenize": same(v1.DetokenizeRequest(model=MODEL, token_ids=[7] * MOST_IDS)),
    }


def keeping(stored):
    vector, artifact = stored.vectors[1], v1.ReadArtifactRequest(name=stored.artifact)
    large_job, full_job = (job(MODEL, vector, count) for count in (MANY_RESPONSES, MOST_RESPONSES))
    return {
        "CreateVector": each(
            lambda seed: v1.CreateVectorRequest(vector=worst_vector(seed)), AT_ONCE
        ),
        "CreateVector of empty statistics": Kind(
            vector_of_empty_statistics, **never_fits("REQUEST_TOO_LARGE")
        ),
        "CreateVector with a long name": same(filled_vector("display_name"), **REFUSED),
        "CreateVector with too many numbers": same(filled_vector("data.data"), **REFUSED),
        "names as long as a message": each(longest_name, len(ONLY_NAMES), **REFUSED),
        "GetVector": same(v1.GetVectorRequest(name=vector)),
        "ListVectors": page(v1.ListVectorsRequest),
        "ListReplicas": same(v1.ListReplicasRequest()),
        "ExportVectors": same(v1.ExportVectorsRequest(vectors=stored.vectors)),
        "ExportVectors that is not read": same(
            v1.ExportVectorsRequest(vectors=stored.vectors), read=False
        ),
        "ImportVectors": Kind(vector_file, 16),
        "ImportVectors of a large file that is none": same(
            *vector_upload(CHUNK * LARGE_FILE), **REFUSED
        ),
        "ImportVectors of a file that announces more than fits": same(
            *vector_upload(CHUNK, size_bytes=1 << 30), **never_fits("REQUEST_TOO_LARGE")
        ),
        "ImportVectors of deep nonsense": same(*vector_upload(nonsense()), **REFUSED),
        "GetNeuronSet": same(v1.GetNeuronSetRequest(name=stored.neuron_set)),
        "ListNeuronSets": page(v1.ListNeuronSetsRequest),
        "ListModels": page(v1.ListModelsRequest),
        "QueryUsage": same(v1.QueryUsageRequest(by_hour=True)),
        "WriteArtifact": same(*upload(6)),
        "ReadArtifact": same(artifact),
        "ReadArtifact that is not read": same(artifact, read=False),
        "ListArtifacts": page(v1.ListArtifactsRequest),
        "GetJob": same(v1.GetJobRequest(name=stored.job)),
        "ListJobs": page(v1.ListJobsRequest),
        "WatchJob": same(v1.WatchJobRequest(name=stored.job)),
        "CreateJob": same(large_job),
        "CreateJob of a full message": same(full_job, **never_fits("REQUEST_TOO_LARGE")),
    }


def kinds(stored):
    """By what they are."""
    return computing(stored.vectors) | of_neurons(stored) | evaluations() | keeping(stored)
