"""A valid call of every RPC: what a tenant made, and the messages that name it."""

import dataclasses
import hashlib
import uuid

import numpy as np
import valuescope as vs
from valuescope import v1
from valuescope.crc32c import crc32c

QUESTION = "w60 {query} w61 {response} w62"
PAIR_QUESTION = "w60 {query} w61 {a} w62 {b}"
OPTIONS = [v1.AnswerOption(label=f"w{64 + i}", text=f"w{40 + i}", score=i) for i in range(3)]
ITEMS = [{"text": f"w{20 + i}", "value": ["power", "care"][i % 2]} for i in range(4)]
QUESTIONS = [{"question": "w30", "choices": ["w40", "w50"], "answer": 1}]
TAGGED = [{"query": "w12", "response": "w22 w23", "weights": {"power": 1.0}}]
TEXTS = [f"w{i} w{i + 1} w{i + 2}" for i in range(12, 30, 3)]
WORDS = vs.WordList(["w2*"])


def words(index):
    return " ".join(f"w{12 + (index * 7 + i) % 60}" for i in range(5))


def labelled(count=6):
    return [vs.labelled(words(i), words(i + 3), i % 2 == 0, f"q{i}") for i in range(count)]


@dataclasses.dataclass(frozen=True)
class Made:
    """What a tenant has, by name; `doomed` is there to be deleted."""

    model: str
    width: int  # of the residual stream
    vectors: list
    neuron_set: str
    active_sets: list  # of activation probabilities
    artifact: str
    job: str
    doomed: dict

    def names(self):
        return [
            self.model,
            *self.vectors,
            self.neuron_set,
            *self.active_sets,
            self.artifact,
            self.job,
        ]


def vector(client, model, seed):
    about = client.model(model)
    rows = np.random.default_rng(seed).standard_normal((about.num_layers, about.hidden_size))
    return client.create_vector(model, rows, layers=range(about.num_layers)).name


def make(client, model, display_name="", first_seed=1):
    """Everything that requests can name. `display_name` is in what is stored; what others with the same seeds make has the same names."""
    vectors = [vector(client, model, first_seed + i) for i in range(2)]
    fields = {"display_name": display_name}
    neuron_set = client.attribute_neurons(model, labelled(), vectors[0], **fields).neuron_set.name
    how = v1.ActivationProbabilityDifference()
    active = [
        client.attribute_neurons(model, labelled(count), activation_probability_difference=how)
        for count in (6, 8)
    ]
    artifact = client.write_artifact(labelled(), **fields).name
    spec = v1.JobSpec(attribute_neurons=vs.attribution_request(model, artifact, vectors[0]))
    job = client.wait_for_job(client.create_job(spec, **fields).name).name
    doomed = {
        "vectors": vector(client, model, first_seed + 2),
        "artifacts": client.write_artifact(b"doomed").name,
        "neuronSets": client.classify_neurons(model, *vectors, top_percent=50.0).name,
        "jobs": client.wait_for_job(client.create_job(spec).name).name,
    }
    width = client.model(model).hidden_size
    sets = [made.neuron_set.name for made in active]
    return Made(model, width, vectors, neuron_set, sets, artifact, job, doomed)


def edits(made):
    """One of each operation."""
    site = {"layers": v1.Layers(all=True)}
    residual = {"site": v1.SITE_RESIDUAL_POST, **site}
    neurons = {"site": v1.SITE_MLP_NEURONS, **site}
    name = made.vectors[0]
    return [
        v1.Intervention(**residual, add=v1.AddVector(vector=name, coefficient=2.0)),
        v1.Intervention(**neurons, scale_neurons=v1.ScaleNeurons(neuron_set=made.neuron_set, factor=0.5)),
    ]  # fmt: skip


def judge(*listed):
    return v1.Judge(word_list=v1.WordListJudge(words=listed))


def specs(made):
    """A job of each kind."""
    model, data = made.model, made.artifact
    sampling = {"max_tokens": 4, "temperature": 0.0}
    sweep = vs.sweep_spec(
        model,
        evaluations={"asked": vs.questionnaire_request(model, ITEMS, OPTIONS, "{item} {options}")},
        objective=("asked", "score.power"),
        vectors=made.vectors[0],
        layers=[0],
        coefficients=[1.0],
    )
    conditions = {"plain": None, "steered": vs.Steer(made.vectors[0], 2.0, layers=1)}
    study = v1.ValueStudySpec(
        model=model,
        values=[
            v1.ValueDefinition(
                value="power", system_messages=["w50"], judge=judge("w2*"), score_judge=judge("w3*")
            )
        ],
        queries=TEXTS[:2],
        development_queries=TEXTS[2:4],
        test_queries=TEXTS[4:],
        sampling=v1.SamplingParams(max_tokens=4),
        steered_sampling=v1.SamplingParams(max_tokens=4),
        coefficients=[1.0],
        random_directions=1,
    )
    return [
        v1.JobSpec(attribute_neurons=vs.attribution_request(model, data, made.vectors[0])),
        v1.JobSpec(extract_vectors=vs.extraction_request(model, data)),
        v1.JobSpec(test_neurons=neuron_test(made)),
        v1.JobSpec(generate_responses=vs.generation_spec(model, TEXTS, conditions, **sampling)),
        v1.JobSpec(capture=vs.capture_spec(model, artifact=data, taps=vs.tap("residual_post"))),
        v1.JobSpec(steering_sweep=sweep),
        v1.JobSpec(value_study=study),
        *(v1.JobSpec(**{field: request}) for field, request in evaluations(made).items()),
    ]


def neuron_test(made):
    target = v1.AttributionTarget(continuation_logprob=v1.ContinuationLogprobTarget())
    return vs.neuron_test_request(
        made.model, labelled(), {"a": [(0, 1)], "b": made.neuron_set}, target, sizes=[1], random_sets=2
    )  # fmt: skip


def evaluations(made):
    model = made.model
    return {
        "ask_questionnaire": vs.questionnaire_request(model, ITEMS, OPTIONS, "{item} {options}"),
        "answer_choices": vs.choices_request(model, QUESTIONS, reading="continuations"),
        "score_tagged_responses": vs.tagged_request(model, TAGGED),
        "judge_responses": vs.judging_request(labelled(), WORDS, model=model),
        "compare_responses": vs.comparison_request(model, [("w1", "w2", "w3")], PAIR_QUESTION),
        "measure_texts": vs.measurement_request(model, labelled(), perplexity=True),
    }


def row(made):
    data = np.linspace(-1, 1, made.width, dtype=np.float32).tobytes()
    return v1.Tensor(dtype=v1.DATA_TYPE_FLOAT32, shape=[1, made.width], data=data)


def calls(made, spare, file):
    """By method: valid calls, each the list of its messages. `spare` is the models/ID of a model that may be loaded and unloaded, `file`
    vectors of the model as safetensors."""
    model, (one, other) = made.model, made.vectors
    prompt = v1.Prompt(token_ids=v1.TokenIds(ids=[5, 6, 7, 8]))
    sampling = v1.SamplingParams(max_tokens=4, temperature=1.0, seed=3)
    generate = {
        "model": model,
        "prompt": prompt,
        "sampling": sampling,
        "interventions": edits(made),
    }
    evaluated = evaluations(made)
    content = b"w12 w13"
    header = v1.WriteArtifactHeader(
        display_name="a", size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    chunk = v1.ArtifactChunk(data=content, crc32c=crc32c(content))
    imported = v1.ImportVectorsHeader(
        model=model,
        format=v1.VECTOR_FORMAT_SAFETENSORS,
        size_bytes=len(file),
        sha256=hashlib.sha256(file).hexdigest(),
    )
    rows = v1.Vector(model=model, layers=[0], data=row(made))
    pair = v1.VectorPair(value="power", intrinsic=one, prompted=other)
    conditions = v1.ConditionVectors(intrinsic=one, prompted=other)
    filters = [v1.NeuronSetFilter(neuron_set=made.neuron_set, top_per_layer=2)] * 2
    contexts = v1.TopContextsRequest(
        model=model, neurons=[v1.NeuronId(layer=0, index=1)], responses=labelled()
    )
    captured = v1.CaptureRequest(
        model=model,
        inputs=[v1.CaptureInput(prompt=prompt)],
        taps=[vs.tap("residual_post")],
        interventions=edits(made),
    )
    single = {
        "ActivationService/Capture": captured,
        "ArtifactService/GetArtifact": v1.GetArtifactRequest(name=made.artifact),
        "ArtifactService/ListArtifacts": v1.ListArtifactsRequest(page_size=2),
        "ArtifactService/ReadArtifact": v1.ReadArtifactRequest(name=made.artifact),
        "ArtifactService/ReadTable": v1.ReadTableRequest(artifact=made.artifact),
        "ArtifactService/DeleteArtifact": v1.DeleteArtifactRequest(name=made.doomed["artifacts"]),
        "EvaluationService/AskQuestionnaire": evaluated["ask_questionnaire"],
        "EvaluationService/AnswerChoices": evaluated["answer_choices"],
        "EvaluationService/ScoreTaggedResponses": evaluated["score_tagged_responses"],
        "EvaluationService/JudgeResponses": evaluated["judge_responses"],
        "EvaluationService/CompareResponses": evaluated["compare_responses"],
        "EvaluationService/MeasureTexts": evaluated["measure_texts"],
        "GenerationService/Generate": v1.GenerateRequest(**generate),
        "GenerationService/StreamGenerate": v1.StreamGenerateRequest(**generate),
        "GenerationService/Score": v1.ScoreRequest(
            model=model, prompt=prompt, continuations=[v1.Response(token_ids=v1.TokenIds(ids=[9]))]
        ),
        "JobService/GetJob": v1.GetJobRequest(name=made.job),
        "JobService/ListJobs": v1.ListJobsRequest(page_size=2),
        "JobService/WatchJob": v1.WatchJobRequest(name=made.job),
        "JobService/CancelJob": v1.CancelJobRequest(name=made.job),
        "JobService/RetryJob": v1.RetryJobRequest(name=made.job, request_id=str(uuid.UUID(int=5))),
        "JobService/DeleteJob": v1.DeleteJobRequest(name=made.doomed["jobs"]),
        "ModelService/ListModels": v1.ListModelsRequest(page_size=2),
        "ModelService/ListReplicas": v1.ListReplicasRequest(),
        "ModelService/GetModel": v1.GetModelRequest(name=model),
        "ModelService/LoadModel": v1.LoadModelRequest(name=spare),
        "ModelService/UnloadModel": v1.UnloadModelRequest(name=spare, force=True),
        "ModelService/Tokenize": v1.TokenizeRequest(model=model, prompt=v1.Prompt(text="w1 w2")),
        "ModelService/Detokenize": v1.DetokenizeRequest(model=model, token_ids=[4, 5]),
        "NeuronService/AttributeNeurons": vs.attribution_request(model, labelled(), one),
        "NeuronService/ClassifyNeurons": v1.ClassifyNeuronsRequest(model=model, vectors=conditions),
        "NeuronService/ScoreSelectivity": v1.ScoreSelectivityRequest(neuron_sets=made.active_sets),
        "NeuronService/TestNeurons": neuron_test(made),
        "NeuronService/CompareNeuronSets": v1.CompareNeuronSetsRequest(sets=filters),
        "NeuronService/GetNeuronSet": v1.GetNeuronSetRequest(name=made.neuron_set),
        "NeuronService/ListNeuronSets": v1.ListNeuronSetsRequest(page_size=2),
        "NeuronService/DeleteNeuronSet": v1.DeleteNeuronSetRequest(name=made.doomed["neuronSets"]),
        "NeuronService/TopContexts": contexts,
        "TenantService/PublishResource": v1.PublishResourceRequest(name=one),
        "TenantService/WithdrawResource": v1.WithdrawResourceRequest(name=one),
        "TenantService/QueryUsage": v1.QueryUsageRequest(tenant="*", by_hour=True),
        "VectorService/ExtractVectors": vs.extraction_request(model, labelled()),
        "VectorService/DecomposeVectors": v1.DecomposeVectorsRequest(pairs=[pair]),
        "VectorService/CompareVectors": v1.CompareVectorsRequest(vectors=[one, other]),
        "VectorService/CreateVector": v1.CreateVectorRequest(vector=rows),
        "VectorService/GetVector": v1.GetVectorRequest(name=one),
        "VectorService/ListVectors": v1.ListVectorsRequest(page_size=2),
        "VectorService/DeleteVector": v1.DeleteVectorRequest(name=made.doomed["vectors"]),
        "VectorService/ExportVectors": v1.ExportVectorsRequest(
            vectors=[one], format=v1.VECTOR_FORMAT_SAFETENSORS
        ),
    }
    found = {method: [[request]] for method, request in single.items()}
    found["JobService/CreateJob"] = [[v1.CreateJobRequest(spec=spec)] for spec in specs(made)]
    found["ArtifactService/WriteArtifact"] = [
        [v1.WriteArtifactRequest(header=header), v1.WriteArtifactRequest(chunk=chunk)]
    ]
    found["VectorService/ImportVectors"] = [
        [v1.ImportVectorsRequest(header=imported), v1.ImportVectorsRequest(data=file)]
    ]
    return found
